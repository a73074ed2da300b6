//go:build !linux

package wal

import "os"

// syncData makes the data of f durable.
func syncData(f *os.File) error { return f.Sync() }

// writeBack does nothing: the sync that follows writes.
func writeBack(*os.File, int64, int64) error { return nil }

// allocate does nothing: the zeros that follow reserve their blocks.
func allocate(*os.File, int64, int64) error { return nil }
