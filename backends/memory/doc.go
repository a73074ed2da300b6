// Package memory is the backend that keeps everything in memory and nothing
// after Close: for tests, and for demonstrations with `sync: never`.
//
// It is a map and, for scans, a sorted list of its keys that is built when a
// scan finds it stale. Values are stored sealed, as every driver stores them, so
// that tests can damage one and see what happens.
//
// Safe for concurrent use; one lock, held for a Commit, a Get or one chunk of a
// scan. Nothing is durable.
package memory
