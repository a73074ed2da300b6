// Package inspect looks into a data directory that no broker has open: what is
// there, whether it is sound, what happened, and what changed.
//
//	            ┌ Overview   what is there, what a start would do
//	            ├ Verify     every checksum, every join, every hash
//	Open ─▶ Dir ┼ Dump       the records
//	            ├ Why        what became of a client's messages
//	            └ Diff       the state at one record against another
//
// It works on files alone and changes no byte of them: the log is read by
// wal.Scan, which decides nothing; the backend is opened read-only, without the
// settling commit; a torn tail is described and stays. The directory's lock is
// shared with others who look, and keeps a broker from starting meanwhile.
//
// Results are plain data with JSON tags, stable as the command line's -o json.
// Names and payloads in them come from the network as they are: who prints them
// makes them fit for a terminal.
//
// # Where a state comes from
//
// State = replay(records), so a question about the past needs a state that is
// older and the records from there on. The sources, in the order of trust: the
// log from record 1, which needs nothing else; a base in the archive; the
// backend, whose state is that of its applied index. Every answer says which it
// was, and how far back it reaches.
//
// # Concurrency and memory
//
// A Dir is for one goroutine. Every call takes a context and tells its progress.
// Dump keeps nothing that grows with the log; the others hold one machine, Diff
// a summary of a second state.
package inspect
