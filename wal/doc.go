// Package wal is the write-ahead log: frames of records in segment files,
// group commit, start-up repair of torn tails, and a reader of its own.
package wal
