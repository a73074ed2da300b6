package recovery

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/wind-c/comqtt/v3/backends"
	"github.com/wind-c/comqtt/v3/backends/badger"
	"github.com/wind-c/comqtt/v3/backends/bbolt"
	"github.com/wind-c/comqtt/v3/backends/redis"
)

// badgerName is the directory of the badger backend in a data directory.
const badgerName = "state.badger"

// storeName returns the name of a backend in a data directory.
func storeName(kind string) string {
	if kind == BackendBadger {
		return badgerName
	}
	return boltName
}

// storeOptions say how to open a backend that is on disk.
type storeOptions struct {
	create, readOnly bool
	logger           *slog.Logger
}

// openStore opens a backend that is on disk.
func openStore(kind, path string, o storeOptions) (backends.Store, error) {
	if kind == BackendBadger {
		s, err := badger.Open(path, badger.Options{Create: o.create, ReadOnly: o.readOnly, Logger: o.logger})
		if err != nil {
			return nil, err
		}
		return s, nil
	}
	s, err := bbolt.Open(path, bbolt.Options{Create: o.create, ReadOnly: o.readOnly})
	if err != nil {
		return nil, err
	}
	return s, nil
}

// StoreFile returns where a data directory with this manifest has its backend.
// Without one, or if the backend was changed since, what is there decides.
func StoreFile(dir string, m *Manifest) (kind, path string) {
	kind = BackendBbolt
	if m != nil && m.Backend == BackendBadger {
		kind = BackendBadger
	}
	path = filepath.Join(dir, storeName(kind))
	if _, err := os.Lstat(path); err == nil {
		return kind, path
	}
	for _, other := range []string{BackendBbolt, BackendBadger} {
		p := filepath.Join(dir, storeName(other))
		if _, err := os.Lstat(p); err == nil {
			return other, p
		}
	}
	return kind, path
}

// OpenStoreFile opens what StoreFile found for reading. The caller has the lock
// of the data directory.
func OpenStoreFile(kind, path string) (backends.Store, error) {
	return openStore(kind, path, storeOptions{readOnly: true})
}

// held returns the name of a backend on disk that the directory has, "" if it
// has none.
func (p *opening) held() string {
	for _, name := range []string{boltName, badgerName} {
		if p.has(name) {
			return name
		}
	}
	return ""
}

// otherBackend refuses a directory that has its state in another backend than
// the one asked for. It could be begun anew only while the log holds all of it,
// and which of the two were the truth would then be a matter of luck.
func (p *opening) otherBackend() error {
	other := p.held()
	if other == "" {
		return nil
	}
	kind := BackendBbolt
	if other == badgerName {
		kind = BackendBadger
	}
	return fmt.Errorf("%w: %s has its state in %s: use --backend %s, or move it with comqtt migrate", ErrBackend, p.opt.Dir, other, kind)
}

// openMirror prepares the second target, if one is asked for, and refuses keys
// that are not this store's. A server that does not answer is tried again later.
func (p *opening) openMirror() error {
	o := p.opt.Mirror
	if o.URL == "" {
		return nil
	}
	if err := redis.CheckURL(o.URL); err != nil {
		return fmt.Errorf("%w: %w", ErrBackend, err)
	}
	m := newMirror(o, p.opt.Logger)
	m.storeID, m.epoch, m.last = p.manifest.m.StoreID, uint64(p.machine.Boot())+1, p.log.Last
	p.mirror = m
	if err := m.first(p.ctx, p.mark); err != nil {
		return fmt.Errorf("%w: %w", ErrBackend, err)
	}
	return nil
}

// giveUp closes the target of a mirror that was never started.
func (m *mirror) giveUp() error {
	if m == nil {
		return nil
	}
	m.cancel()
	if m.target == nil {
		return nil
	}
	return m.target.Close()
}
