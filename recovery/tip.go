package recovery

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/wind-c/comqtt/v3/backends"
	"github.com/wind-c/comqtt/v3/broker/core"
	"github.com/wind-c/comqtt/v3/wal/archive"
)

// This file is for tools that move a whole state to another backend.

// MigrationFile is in a data directory while a migration fills it: the
// directory has no manifest then, and Open refuses it.
const MigrationFile = "MIGRATION"

// ErrMigrating says that a migration into a data directory has not ended. It is
// in a *DamageError.
var ErrMigrating = errors.New("a migration into this directory has not ended")

// TipOptions says whose newest state OpenTip builds.
type TipOptions struct {
	// Dir is the data directory; "" is none: then the store is all there is.
	Dir      string
	Manifest *Manifest
	// Store is the open backend, nil if the log is the only copy. It stays open
	// as long as the Past is used, and is the caller's to close.
	Store backends.Store
	// Name of the backend, for errors.
	Name string
	// Progress is as that of PastOptions.
	Progress func(done, total int64)
}

// Tip is the newest state of a data directory.
type Tip struct {
	*Past
	Mark backends.Mark // of the backend; the zero Mark if there is none
	Torn bool          // the log has a torn end, which was left out
}

// OpenTip builds the state at the end of the log from what a backend holds and
// the records after it. It reads, and changes nothing: a torn end of the log is
// passed over, damage is refused as Open would.
//
// Errors: *DamageError, *wal.CorruptError, ErrVersion, those of the store.
func OpenTip(ctx context.Context, o TipOptions) (*Tip, error) {
	t := &Tip{Past: &Past{HashKey: o.Manifest.HashKey, Machine: core.New()}}
	if o.Store != nil {
		b := &Backend{store: o.Store}
		if err := b.load(ctx, o.Name, o.Manifest); err != nil {
			return nil, err
		}
		t.Machine, t.Mark, t.From = b.Machine, b.Mark, b.Mark.Applied
		t.salvage = b.Bodies
		if b.Mark.Applied > 0 {
			t.Hashes++
		}
	}
	if o.Dir == "" {
		return t, nil
	}
	end, err := t.openLog(&o)
	if err != nil || end == t.Mark.Applied {
		return t, err
	}
	return t, t.replay(ctx, &PastOptions{History: t.history, Index: end, HashKey: t.HashKey, Progress: o.Progress}, t.From+1)
}

// openLog scans the log and returns its last record. It has to join the
// backend's state.
func (t *Tip) openLog(o *TipOptions) (end uint64, err error) {
	t.history, err = archive.OpenHistory(ArchiveDir(o.Dir), LogDir(o.Dir), o.Manifest.StoreID)
	if err != nil {
		return 0, err
	}
	in := t.history.Log
	if in == nil || len(in.Segments) == 0 {
		floor := max(o.Manifest.Floor, t.Mark.Applied)
		if floor > 0 && (!t.Mark.Sealed || floor > t.Mark.Applied) {
			return 0, &DamageError{
				File: LogDir(o.Dir), What: fmt.Sprintf("missing or empty; the backend's state at record %d is not sealed", t.Mark.Applied),
				Lost: fmt.Sprintf("what came after record %d", t.Mark.Applied), Do: Advice(o.Dir),
			}
		}
		return t.Mark.Applied, nil
	}
	t.Torn, err = in.Verdict(max(o.Manifest.Floor, t.Mark.Applied), t.Mark.Applied+1)
	if err != nil {
		return 0, &DamageError{
			File: LogDir(o.Dir), What: "acknowledged records are damaged or missing", Err: err,
			Lost: fmt.Sprintf("what came after record %d, all or in part", t.Mark.Applied), Do: Advice(o.Dir),
		}
	}
	return in.Last, nil
}

// StateHash computes the state hash of what a store holds, which nobody writes
// meanwhile, by reading all of its entries.
func StateHash(ctx context.Context, s backends.Store, hashKey *[16]byte) ([16]byte, error) {
	t := readTables(ctx, s, []byte(stateTables), hashKey)
	defer t.stop()
	for _, table := range []byte(stateTables) {
		if err := t.scan(table, func(_, _ []byte) error { return nil }); err != nil {
			return [16]byte{}, err
		}
	}
	t.stop() // the hash belongs to the goroutine until then
	return t.hash.Bytes(), nil
}

// migrating refuses a directory that a migration has not filled yet.
func (p *opening) migrating() error {
	if _, err := os.Lstat(p.path(MigrationFile)); err != nil {
		return nil //nolint:nilerr // not there
	}
	return &DamageError{
		File: p.opt.Dir, What: "half made", Err: ErrMigrating,
		Lost: "nothing: the source has everything", Do: "comqtt migrate run --resume, with the same --from and --to; or remove the directory",
	}
}
