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
// Fields, all of version 1; n is a uvarint in its shortest form, s a byte
// string (its length as uvarint, then its bytes), bracketed fields are there
// when a flag says so:
//
//	genesis         store id [16], n feature level, limits
//	config          limits
//	  limits        flags (1 share users, 2 drop oldest), n max inflight,
//	                n queue messages, n queue bytes, n expiry maximum, n grace
//	server-start    n boot, n wall clock ms
//	tick            nothing
//	connect         flags (1 clean start, 2 will), u8 version, n epoch,
//	                s client id, s user, n expiry, n receive maximum,
//	                n maximum packet, [will]
//	  will          flags (3 QoS, 4 retain, 8 expiry), n delay, [n expiry],
//	                s message
//	disconnect      flags (1 drop will, 2 expiry), u8 reason, n session,
//	                n epoch, [n expiry]
//	will            n epoch, s client id, s user, will
//	subscribe       n session, n epoch, n packet id, n subscription id,
//	                n filters, each: u8 options, s filter
//	unsubscribe     n session, n epoch, n packet id, n filters, each: s
//	publish         flags (3 QoS, 4 retain, 8 expiry, 16 will, 32 choices),
//	                n session, n epoch, n packet id, [n expiry], [n will],
//	                [n choices, each: s share, s filter, member], message
//	  member        n session, when that is 0: n epoch, when that is not: u8 QoS
//	pubrel          n session, n epoch, n packet id
//	ack             flags (3 reason, 128 group), n session, n epoch, then
//	                n runs, each: n first, n count
//	                or, with group: s share, s filter, n message
//	rec             n session, n epoch, n packet id, u8 reason code
//	dispatch        s share, s filter, n message, member, when that is nobody:
//	                n epoch it is taken back from
//	session-remove  s client id, s by
//	retain-clear    s topic, s by
//	state-hash      n index, hash [16]
//	upgrade         n level
//
// The message of a Publish is the stored message, the MQTT 5 encoding of
// package packets, and takes the rest of the record; in a will it is a byte
// string of that form.
//
// A kind or a version that this release does not know is an [UnknownError],
// never skipped; a flag that no version defines is [ErrValue], never ignored:
// a new field makes a new version. The layouts are a promise: testdata holds
// golden files for each kind and version, and those are never edited.
//
// Decoding and appending do not allocate for Publish, PubRel, Ack and Rec.
// What is decoded aliases the record's bytes: copy what must outlive them.
// Nothing here does I/O, and one value is not for concurrent use.
package record
