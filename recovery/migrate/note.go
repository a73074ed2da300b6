package migrate

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/wind-c/comqtt/v3/backends"
	"github.com/wind-c/comqtt/v3/recovery"
)

// note says in a target where its state comes from. It is the content of the
// file MIGRATION, and of the pair of that name, as JSON.
type note struct {
	From    string `json:"from"`
	To      string `json:"to"`
	StoreID id     `json:"store_id"` // of the target
	NodeID  id     `json:"node_id"`
	HashKey id     `json:"hash_key"`
	Source  id     `json:"source_store_id"`
	Applied uint64 `json:"applied"`
	Hash    id     `json:"state_hash"`
	Done    bool   `json:"done,omitempty"`
}

// sameState says whether two notes are of one source in one state.
func (n *note) sameState(o *note) bool {
	return n.Source == o.Source && n.Applied == o.Applied && n.Hash == o.Hash && n.HashKey == o.HashKey
}

// id is 16 bytes, hexadecimal in JSON.
type id [16]byte

// MarshalText implements encoding.TextMarshaler.
func (i id) MarshalText() ([]byte, error) { return []byte(i.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (i *id) UnmarshalText(b []byte) error {
	if hex.DecodedLen(len(b)) != len(i) {
		return errors.New("not 16 bytes in hexadecimal")
	}
	_, err := hex.Decode(i[:], b)
	return err
}

// String returns the bytes in hexadecimal.
func (i id) String() string { return hex.EncodeToString(i[:]) }

func (n *note) encode() []byte {
	b, err := json.MarshalIndent(n, "", "  ")
	if err != nil {
		panic("migrate: a note is no JSON: " + err.Error()) // its fields are strings and numbers
	}
	return append(b, '\n')
}

func decodeNote(b []byte) (*note, error) {
	n := &note{}
	if err := json.Unmarshal(b, n); err != nil {
		return nil, fmt.Errorf("migrate: read the note of a migration: %w", err)
	}
	return n, nil
}

// The keys of a migration's own pairs: in the table of bodies, at an id that no
// message has.
func ownKey(name string) []byte {
	return append(backends.IDKey(nil, backends.TableBody, 0), name...)
}

func noteKey() []byte   { return ownKey("migration") }
func cursorKey() []byte { return ownKey("cursor") }

// get reads one pair; nil if it is not there.
func get(ctx context.Context, s backends.Store, key []byte) (value []byte, err error) {
	err = s.Get(ctx, [][]byte{key}, func(_ int, val []byte) error {
		if val != nil {
			value = append([]byte{}, val...)
		}
		return nil
	})
	return value, err
}

// readNote reads the note in a store, nil if there is none.
func readNote(ctx context.Context, s backends.Store) (*note, error) {
	b, err := get(ctx, s, noteKey())
	if err != nil || b == nil {
		return nil, err
	}
	return decodeNote(b)
}

// cursor is how far a target is filled.
type cursor struct {
	pairs uint64
	bytes uint64
	crc   uint32 // over the keys and values of the pairs, in order
}

func (c *cursor) encode() []byte {
	b := binary.AppendUvarint(nil, c.pairs)
	b = binary.AppendUvarint(b, c.bytes)
	return binary.BigEndian.AppendUint32(b, c.crc)
}

func readCursor(ctx context.Context, s backends.Store) (c cursor, err error) {
	b, err := get(ctx, s, cursorKey())
	if err != nil || b == nil {
		return c, err
	}
	pairs, n := binary.Uvarint(b)
	bytes, k := binary.Uvarint(b[max(n, 0):])
	if n <= 0 || k <= 0 || len(b) != n+k+4 {
		return c, &backends.CorruptError{Key: cursorKey(), Offset: -1, Err: errors.New("not a cursor")}
	}
	return cursor{pairs, bytes, binary.BigEndian.Uint32(b[n+k:])}, nil
}

func notePath(dir string) string { return filepath.Join(dir, recovery.MigrationFile) }

// writeNoteFile makes the file MIGRATION, durably.
func writeNoteFile(dir string, n *note) error {
	tmp := notePath(dir) + ".tmp"
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("%w: %w", recovery.ErrCreate, err)
	}
	_, err = f.Write(n.encode())
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(tmp, notePath(dir))
	}
	if err != nil {
		return fmt.Errorf("migrate: write %s: %w", recovery.MigrationFile, err)
	}
	return recovery.SyncDir(dir)
}
