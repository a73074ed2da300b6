// Package record is the alphabet of the state machine: the versioned records
// that a log frame carries, one file a kind.
//
// A record is an input or a decision, never an effect: one PUBLISH to a
// hundred thousand offline sessions is one record. Applying the same records
// in the same order gives the same state on every machine and every run.
//
// # Bytes
//
// Every record starts with its kind and the version of that kind's layout:
//
//	+------+---------+--------------------------------------------------+
//	| kind | version | fields in the order of the kind's struct         |
//	|  u8  |   u8    | uvarint numbers, uvarint-prefixed byte strings   |
//	+------+---------+--------------------------------------------------+
//
// Numbers are unsigned varints. A byte string is its length as uvarint and
// its bytes. Flags are one byte; a flag bit says whether an optional field
// follows. The last field of Publish and of a will is the stored message,
// the MQTT 5 encoding of package packets, and takes the rest of the record.
//
// A kind or a version this release does not know is an [UnknownError], never
// skipped. The layouts are a promise: testdata holds one golden file for each
// kind and version, and those files are never edited.
//
// Decoding does not allocate for Publish, PubRel, Ack and Rec; slices alias
// the record's bytes. Nothing here does I/O or is safe for concurrent use of
// one value.
package record
