package bbolt

import (
	"errors"
	"fmt"
	"runtime/debug"

	bolt "go.etcd.io/bbolt"

	"github.com/wind-c/comqtt/v3/backends"
)

// guard makes the calling goroutine survive what bbolt does on damaged pages:
// it panics, or it reads outside the file and faults. Use it as
//
//	defer s.guard(&err, &calling, undo)()
//
// A panic becomes a *backends.CorruptError in err, after undo. While *calling is
// true the caller's own code runs: its panic goes on, after undo.
func (s *Store) guard(err *error, calling *bool, undo func()) func() {
	old := debug.SetPanicOnFault(true)
	return func() {
		defer debug.SetPanicOnFault(old)
		p := recover()
		if p == nil {
			return
		}
		undo()
		if calling != nil && *calling {
			panic(p)
		}
		*err = s.fromPanic(p)
	}
}

func (s *Store) fromPanic(p any) error {
	cause, ok := p.(error)
	if !ok {
		cause = fmt.Errorf("%v", p)
	}
	return s.damage(nil, fmt.Errorf("bbolt gave up: %w", cause))
}

// abandon ends a write transaction that panicked, and the use of the store.
func (s *Store) abandon(tx *bolt.Tx) {
	s.fail(s.damage(nil, errors.New("a write transaction found damaged pages")))
	s.release(tx)
}

// release rolls tx back after a panic. If that is not possible (tx is nil: the
// panic came while bbolt held its own locks), the store is stuck.
func (s *Store) release(tx *bolt.Tx) {
	done := false
	defer func() {
		if !done {
			if p := recover(); p != nil {
				s.fail(s.fromPanic(p))
			}
			s.stuck.Store(true)
		}
	}()
	if tx == nil {
		s.fail(s.damage(nil, errors.New("meta pages are not readable")))
		return
	}
	done = tx.Rollback() == nil
}

// damage makes a *backends.CorruptError of what was found.
func (s *Store) damage(key []byte, err error) error {
	return &backends.CorruptError{Store: s.path, Key: key, Offset: -1, Err: err}
}

// complete fills the path into an error of Unseal or DecodeMark.
func (s *Store) complete(err error) error {
	if err == nil {
		return nil
	}
	var c *backends.CorruptError
	if errors.As(err, &c) {
		c.Store = s.path
	}
	return err
}
