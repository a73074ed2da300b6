package redis

import (
	"errors"
	"fmt"
	"strings"

	rdb "github.com/redis/go-redis/v9"

	"github.com/wind-c/comqtt/v3/backends"
)

var (
	// ErrForeign says that the keys hold the state of another store.
	ErrForeign = errors.New("redis: the keys belong to another store")

	// ErrNewer says that the keys hold a later state of this store than this
	// broker ever had: its data directory is older than they are.
	ErrNewer = errors.New("redis: the keys are newer than the data directory")

	// ErrTaken says that another broker with the same store id works on the
	// keys, which is so when a data directory was copied.
	ErrTaken = errors.New("redis: another broker works on the keys")

	// ErrForgot says that the server does not have what it had acknowledged:
	// it was flushed, or has gone back to older data. Attach accepts that.
	ErrForgot = errors.New("redis: the server has forgotten")

	// ErrURL reports a URL that cannot be used.
	ErrURL = errors.New("redis: bad URL")
)

// Refused says whether err means that the keys are not this broker's, so that
// trying again does not help.
func Refused(err error) bool {
	for _, e := range []error{ErrForeign, ErrNewer, ErrTaken, backends.ErrNotStore, backends.ErrSchema} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// explain gives an error of the server or the connection its meaning. All of
// them may go away, but for a key of another type.
func (s *Store) explain(what string, err error) error {
	text := err.Error()
	switch {
	case s.closing.Load(), errors.Is(err, rdb.ErrClosed):
		return backends.ErrClosed
	case strings.HasPrefix(text, "WRONGTYPE"), strings.Contains(text, "Operation against a key holding the wrong kind"):
		return fmt.Errorf("redis: %s %s: %w: %w", what, s.name, backends.ErrNotStore, err)
	case strings.HasPrefix(text, "OOM"), strings.Contains(text, "used memory > 'maxmemory'"):
		return fmt.Errorf("redis: %s %s: %w: %w", what, s.name, backends.ErrFull, err)
	}
	return fmt.Errorf("redis: %s %s: %w", what, s.name, err)
}
