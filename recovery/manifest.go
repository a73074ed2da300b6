package recovery

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
)

const (
	manifestName    = "MANIFEST"
	manifestOld     = "MANIFEST.old"
	manifestVersion = 1
	manifestMax     = 64 << 10
)

// Manifest is what identifies a data directory. It is a small text file:
//
//	comqtt manifest 1
//	store-id 6f0c…        16 bytes: every frame of the log and the backend carry it
//	node-id 9a41…         16 bytes: this broker, for a cluster
//	hash-key 03d7…        16 bytes: key of the state hash
//	backend bbolt
//	floor 123456          the log's records up to here were durable
//	state open            or sealed: stopped in good order
//	generation 17
//	crc32c 89ab01cd       of all lines before
//
// It is replaced as a whole (written under another name, synced, renamed, the
// directory synced), and the generation before it is kept as MANIFEST.old.
type Manifest struct {
	StoreID    [16]byte
	NodeID     [16]byte
	HashKey    [16]byte
	Backend    string
	Floor      uint64
	Sealed     bool
	Generation uint64
}

// NewManifest returns the manifest of a new store, with random identities.
func NewManifest(backend string) Manifest {
	m := Manifest{Backend: backend}
	for _, id := range []*[16]byte{&m.StoreID, &m.NodeID, &m.HashKey} {
		_, _ = rand.Read(id[:]) // never fails: it ends the process first
	}
	return m
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func (m *Manifest) encode() []byte {
	state := "open"
	if m.Sealed {
		state = "sealed"
	}
	b := fmt.Appendf(nil, "comqtt manifest %d\nstore-id %x\nnode-id %x\nhash-key %x\nbackend %s\nfloor %d\nstate %s\ngeneration %d\n",
		manifestVersion, m.StoreID, m.NodeID, m.HashKey, m.Backend, m.Floor, state, m.Generation)
	return fmt.Appendf(b, "crc32c %08x\n", crc32.Checksum(b, castagnoli))
}

// errManifest says that the bytes are not a whole manifest.
var errManifest = errors.New("not a manifest, or damaged")

func decodeManifest(b []byte) (m Manifest, err error) {
	at := bytes.LastIndex(b, []byte("\ncrc32c ")) + 1
	if at == 0 || string(b[at:]) != fmt.Sprintf("crc32c %08x\n", crc32.Checksum(b[:at], castagnoli)) {
		return m, errManifest
	}
	lines := strings.Split(strings.TrimSuffix(string(b[:at]), "\n"), "\n")
	var version int
	if _, err := fmt.Sscanf(lines[0], "comqtt manifest %d", &version); err != nil || version < 1 {
		return m, errManifest
	}
	if version > manifestVersion {
		return m, fmt.Errorf("%w: manifest version %d, this release knows %d", ErrVersion, version, manifestVersion)
	}
	r := lineReader{lines: lines[1:]}
	r.id("store-id", &m.StoreID)
	r.id("node-id", &m.NodeID)
	r.id("hash-key", &m.HashKey)
	m.Backend = r.field("backend")
	m.Floor = r.number("floor")
	state := r.field("state")
	m.Sealed = state == "sealed"
	m.Generation = r.number("generation")
	if r.bad || len(r.lines) > 0 || state != "sealed" && state != "open" {
		return m, errManifest
	}
	return m, nil
}

// lineReader reads "name value" lines in order. The first failure sticks.
type lineReader struct {
	lines []string
	bad   bool
}

func (r *lineReader) field(name string) string {
	if len(r.lines) == 0 {
		r.bad = true
		return ""
	}
	v, ok := strings.CutPrefix(r.lines[0], name+" ")
	r.lines = r.lines[1:]
	r.bad = r.bad || !ok
	return v
}

func (r *lineReader) number(name string) uint64 {
	n, err := strconv.ParseUint(r.field(name), 10, 64)
	r.bad = r.bad || err != nil
	return n
}

func (r *lineReader) id(name string, id *[16]byte) {
	b, err := hex.DecodeString(r.field(name))
	if err != nil || len(b) != len(id) {
		r.bad = true
		return
	}
	copy(id[:], b)
}

// ReadManifest reads the manifest of a data directory. If the file is damaged
// or missing, the generation before it is used and warning says so: what is
// lost with the newest generation is a higher floor, which the backend and the
// log know too.
//
// Errors: fs.ErrNotExist if there is none, *DamageError if none can be read,
// ErrVersion.
func ReadManifest(dir string) (m Manifest, warning string, err error) {
	m, err = readManifestFile(filepath.Join(dir, manifestName))
	if err == nil || errors.Is(err, ErrVersion) {
		return m, "", err
	}
	old, oldErr := readManifestFile(filepath.Join(dir, manifestOld))
	switch {
	case oldErr == nil || errors.Is(oldErr, ErrVersion):
		return old, fmt.Sprintf("%s cannot be used (%v); took %s", manifestName, err, manifestOld), oldErr
	case errors.Is(err, fs.ErrNotExist) && errors.Is(oldErr, fs.ErrNotExist):
		return m, "", err
	}
	return m, "", &DamageError{
		File: filepath.Join(dir, manifestName), What: "neither it nor " + manifestOld + " can be read",
		Lost: "the identities and the key that prove that log and backend belong together",
		Do:   "put back a copy of MANIFEST from a backup of this directory, of any age", Err: fmt.Errorf("%w; %s: %w", err, manifestOld, oldErr),
	}
}

func readManifestFile(path string) (Manifest, error) {
	info, err := os.Stat(path)
	if err != nil {
		return Manifest{}, err
	}
	if info.Size() > manifestMax {
		return Manifest{}, errManifest
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return Manifest{}, err
	}
	return decodeManifest(b)
}

// WriteManifest makes m the next generation of the directory's manifest. It
// returns when that is durable.
func WriteManifest(dir string, m *Manifest) error {
	path := filepath.Join(dir, manifestName)
	current, err := os.ReadFile(path)
	switch {
	case err == nil:
		// A copy, so that there is a MANIFEST at every moment. A damaged one is
		// not worth keeping, and must not replace the good old one.
		if _, derr := decodeManifest(current); derr == nil {
			err = replaceFile(dir, manifestOld, current)
		}
	case errors.Is(err, fs.ErrNotExist):
		err = nil
	}
	if err != nil {
		return fmt.Errorf("recovery: write manifest: %w", err)
	}
	next := *m
	next.Generation++
	if err := replaceFile(dir, manifestName, next.encode()); err != nil {
		return fmt.Errorf("recovery: write manifest: %w", err)
	}
	*m = next
	return syncDir(dir)
}

// replaceFile gives the file the content, all or nothing. The new name is
// durable after the next sync of the directory.
func replaceFile(dir, name string, content []byte) error {
	tmp := filepath.Join(dir, name+".tmp")
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, filePerm)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(tmp, filepath.Join(dir, name))
}

// syncDir makes the names in a directory durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err == nil {
		err = errors.Join(d.Sync(), d.Close())
	}
	if err != nil {
		return fmt.Errorf("recovery: sync directory: %w", err)
	}
	return nil
}

// manifestFile is the manifest of an open state. The compactor and Close write
// it.
type manifestFile struct {
	dir string
	mu  sync.Mutex
	m   Manifest
}

func (f *manifestFile) get() Manifest {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.m
}

// update raises the floor and sets the state.
func (f *manifestFile) update(floor uint64, sealed bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	m := f.m
	m.Floor, m.Sealed = max(m.Floor, floor), sealed
	if err := WriteManifest(f.dir, &m); err != nil {
		return err
	}
	f.m = m
	return nil
}
