//go:build !linux

package wal

import "os"

// syncer makes files durable.
type syncer struct{}

func newSyncer() *syncer { return &syncer{} }

func (*syncer) sync(f *os.File) error { return syncData(f) }

func (*syncer) close() error { return nil }

// available reports whether the kernel's queue is in use.
func (s *syncer) available() bool { return false }
