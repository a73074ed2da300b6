package migrate

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/wind-c/comqtt/v3/backends"
	"github.com/wind-c/comqtt/v3/backends/badger"
	"github.com/wind-c/comqtt/v3/backends/bbolt"
	"github.com/wind-c/comqtt/v3/backends/redis"
	"github.com/wind-c/comqtt/v3/broker/core"
	"github.com/wind-c/comqtt/v3/recovery"
)

// Progress is told a step and the bytes done and to be done in it.
type Progress func(step string, done, total int64)

// badgerName is the directory of the badger backend in a data directory.
const badgerName = "state.badger"

// source is a state that is read.
type source struct {
	url      URL
	manifest recovery.Manifest
	store    backends.Store // nil: the log is the only copy
	tip      *recovery.Tip
	crcs     []bodySum // of the messages, in the order of their ids
	hash     [16]byte  // of the state
	look     *recovery.Look
	warnings []string
}

// bodySum is what the state knows of a message's body.
type bodySum struct {
	id   uint64
	crc  uint32
	size uint32
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// openSource opens a backend and builds its newest state.
func openSource(ctx context.Context, u URL, progress Progress) (*source, error) {
	s := &source{url: u}
	if err := s.open(ctx, progress); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

func (s *source) open(ctx context.Context, progress Progress) (err error) {
	progress("read the source", 0, 0)
	if s.url.Dir == "" {
		err = s.openRedis(ctx)
	} else {
		err = s.openDir()
	}
	if err != nil {
		return err
	}
	s.tip, err = recovery.OpenTip(ctx, recovery.TipOptions{
		Dir: s.url.Dir, Manifest: &s.manifest, Store: s.store, Name: s.url.String(),
		Progress: func(done, total int64) { progress("replay the log", done, total) },
	})
	if err != nil {
		return unreachable(err)
	}
	if s.tip.Machine.Level() == 0 {
		return fmt.Errorf("%w: %s holds no record", ErrNoData, s.url)
	}
	s.hash = s.tip.Machine.Hash(&s.manifest.HashKey).Bytes()
	s.crcs = bodySums(s.tip)
	if s.tip.Torn {
		s.warnings = append(s.warnings, "the end of the source's log is torn: what was never acknowledged is left out")
	}
	return nil
}

// openDir opens the backend in a data directory.
func (s *source) openDir() error {
	dir := s.url.Dir
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: there is no directory %s", ErrNoData, dir)
	}
	var err error
	if s.look, err = recovery.LockShared(dir); err != nil {
		return err
	}
	m, warning, err := recovery.ReadManifest(dir)
	if errors.Is(err, fs.ErrNotExist) {
		if _, serr := os.Lstat(filepath.Join(dir, recovery.MigrationFile)); serr == nil {
			return fmt.Errorf("%w: %s", ErrUnfinished, s.url)
		}
		return fmt.Errorf("%w: %s has no MANIFEST", ErrNoData, dir)
	}
	if err != nil {
		return err
	}
	if warning != "" {
		s.warnings = append(s.warnings, warning)
	}
	s.manifest = m
	s.store, err = openStore(s.url, true)
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	// No backend of this kind: there may be one of the other kind, the log may
	// be the only copy, or something is missing.
	if other := otherKind(s.url); other != "" {
		return fmt.Errorf("%w: the backend of %s is %s: say %s://%s", ErrNoData, dir, other, other, dir)
	}
	return nil
}

// otherKind returns the kind of the backend that a data directory has instead.
func otherKind(u URL) string {
	for kind, path := range map[string]string{
		KindBbolt: recovery.BackendFile(u.Dir), KindBadger: filepath.Join(u.Dir, badgerName),
	} {
		if _, err := os.Lstat(path); err == nil && kind != u.Kind {
			return kind
		}
	}
	return ""
}

// openStore opens the backend of a data directory.
func openStore(u URL, readOnly bool) (backends.Store, error) {
	if u.Kind == KindBadger {
		s, err := badger.Open(filepath.Join(u.Dir, badgerName), badger.Options{ReadOnly: readOnly, Create: !readOnly})
		if err != nil {
			return nil, err
		}
		return s, nil
	}
	s, err := bbolt.Open(recovery.BackendFile(u.Dir), bbolt.Options{ReadOnly: readOnly, Create: !readOnly})
	if err != nil {
		return nil, err
	}
	return s, nil
}

// openRedis opens the keys of a server.
func (s *source) openRedis(ctx context.Context) error {
	store, err := redis.OpenReader(ctx, s.url.text)
	if err != nil {
		return unreachable(err)
	}
	s.store = store
	mark, err := store.Mark(ctx)
	if err != nil {
		return unreachable(err)
	}
	n, err := readNote(ctx, store)
	switch {
	case err != nil:
		return unreachable(err)
	case n != nil && !n.Done:
		return fmt.Errorf("%w: %s", ErrUnfinished, s.url)
	case mark == (backends.Mark{}):
		return fmt.Errorf("%w: %s holds nothing", ErrNoData, s.url)
	case n == nil:
		return fmt.Errorf("%w: %s was filled by a broker and not by a migration: migrate from its data directory, which is the truth", ErrNoData, s.url)
	}
	s.manifest = recovery.Manifest{StoreID: mark.StoreID, HashKey: n.HashKey, Floor: mark.Applied, Sealed: true}
	return nil
}

// close ends the use of the source.
func (s *source) close() error {
	var errs []error
	if s.tip != nil {
		errs = append(errs, s.tip.Close())
	}
	if s.store != nil {
		errs = append(errs, s.store.Close())
	}
	if s.look != nil {
		errs = append(errs, s.look.Release())
	}
	return errors.Join(errs...)
}

// pairs calls fn for every pair of the state as a backend stores it: the
// entries, then the bodies in the order of their ids, which are compared with
// the checksums that the state has of them.
func (s *source) pairs(ctx context.Context, fn func(key, value []byte) error) error {
	var buf []byte
	err := s.tip.Entries(func(table byte, key, value []byte) error {
		buf = backends.Key(buf[:0], table, key)
		return fn(buf, value)
	})
	if err != nil {
		return err
	}
	c := bodyChecker{name: s.url.String(), left: s.crcs}
	err = s.tip.Bodies(ctx, func(id uint64, body []byte) error {
		if err := c.check(id, body); err != nil {
			return err
		}
		buf = backends.IDKey(buf[:0], backends.TableBody, id)
		return fn(buf, body)
	})
	if err != nil {
		return err
	}
	return c.end()
}

// bodySums lists what the state knows of the bodies.
func bodySums(t *recovery.Tip) []bodySum {
	var list []bodySum
	t.Machine.Messages(func(m core.StoredMessage) bool {
		list = append(list, bodySum{m.ID, m.CRC, m.Size})
		return true
	})
	return list
}

// bodyChecker compares bodies, which come in the order of their ids, with what
// the state knows of them.
type bodyChecker struct {
	name string
	left []bodySum
}

func (c *bodyChecker) check(id uint64, body []byte) error {
	if len(c.left) == 0 || c.left[0].id < id {
		return c.end()
	}
	want := c.left[0]
	if want.id > id { // of no message of the state
		return &recovery.DamageError{File: c.name, What: fmt.Sprintf("has a body of message %d, which the state does not have", id)}
	}
	c.left = c.left[1:]
	if crc32.Checksum(body, castagnoli) != want.crc || len(body) != int(want.size) {
		return &recovery.DamageError{File: c.name, What: fmt.Sprintf("the body of message %d is not the one that was stored", id)}
	}
	return nil
}

// end says which body did not come.
func (c *bodyChecker) end() error {
	if len(c.left) == 0 {
		return nil
	}
	return &recovery.DamageError{File: c.name, What: fmt.Sprintf("the body of message %d is missing", c.left[0].id)}
}

// unreachable marks the errors of a server that did not answer, or lets nobody
// in.
func unreachable(err error) error {
	var op *net.OpError
	var lookup *net.DNSError
	said := fmt.Sprint(err)
	refused := strings.Contains(said, "WRONGPASS") || strings.Contains(said, "NOAUTH") || strings.Contains(said, "NOPERM")
	if errors.As(err, &op) || errors.As(err, &lookup) || os.IsTimeout(err) || strings.Contains(said, "i/o timeout") || refused {
		return fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	return err
}
