package wal

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// writeGolden makes the golden files that do not exist yet. Those that exist
// are a promise and never written again.
var writeGolden = flag.Bool("golden", false, "write missing golden files")

// golden returns the bytes of the hex dump in testdata, which it creates from
// make if it is missing and -golden is set.
func golden(t *testing.T, name string, create func() []byte) []byte {
	t.Helper()
	path := filepath.Join("testdata", name)
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) && *writeGolden {
		text = []byte(hex.Dump(create()))
		err = os.WriteFile(path, text, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	var out []byte
	for line := range strings.Lines(string(text)) {
		digits := strings.ReplaceAll(regexp.MustCompile(`^[0-9a-f]{8}((?: +[0-9a-f]{2})*).*`).ReplaceAllString(strings.TrimSpace(line), "$1"), " ", "")
		b, err := hex.DecodeString(digits)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, b...)
	}
	return out
}

// goldenFrames are the frames of testdata/segment-v1.hex. The third is
// compressed in the file.
func goldenFrames() []Frame {
	var text []byte
	for i := range 100 {
		text = AppendRecord(text, fmt.Appendf(nil, `{"device":"sensor-%02d","temperature":21.5,"humidity":40}`, i))
	}
	long := bytes.Repeat([]byte("a record whose length takes two bytes "), 4)
	return []Frame{
		{First: 1000, Durable: 999, Term: 1, Flags: FlagMark},
		{
			First: 1000, Count: 3, Time: 1_700_000_000_123, Durable: 999, Term: 1,
			Body: AppendRecord(AppendRecord(AppendRecord(nil, []byte("first")), nil), long),
		},
		{First: 1003, Count: 100, Time: 1_700_000_000_456, Durable: 1002, Flags: FlagCompressed, Term: 7, Group: 3, Body: text},
		{First: 1103, Time: 1_700_000_000_456, Durable: 1102, Flags: FlagMark, Term: 7, Group: 3},
		{First: 1103, Count: 1, Time: -1, Durable: 1102, Term: 8, Group: 3, Body: AppendRecord(nil, []byte("last"))},
		{First: 1104, Time: -1, Durable: 1103, Flags: FlagMark | FlagClose, Term: 8, Group: 3},
	}
}

func TestGoldenSegmentV1(t *testing.T) {
	segment := golden(t, "segment-v1.hex", func() []byte {
		var out []byte
		var prev uint32
		for _, f := range goldenFrames() {
			disk := f.Body
			if f.Flags&FlagCompressed != 0 {
				disk = encodeS2(nil, f.Body)
			}
			var b []byte
			b, prev = appendFrame(nil, &f, &testStore, prev, disk)
			out = appendEntry(out, b)
		}
		return out
	})
	dir := t.TempDir()
	files{segmentName(1): segment}.write(t, dir)
	var got []Frame
	in, err := Scan(dir, testStore, func(_ *SegmentInfo, f *Frame) error {
		f.Body = bytes.Clone(f.Body)
		got = append(got, *f)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if in.Damage != nil || in.First != 1000 || in.Last != 1103 || in.Frames != 3 || in.Marks != 3 ||
		in.Records != 104 || in.Durable != 1103 || !in.Clean || in.StoreID != testStore || in.LastTime != -1 {
		t.Fatalf("%+v", in)
	}
	want := goldenFrames()
	for i := range want {
		want[i].Body = bytes.Clone(want[i].Body) // nil and empty alike
		got[i].Body = bytes.Clone(got[i].Body)
		if len(got[i].Body) == 0 {
			got[i].Body = nil
		}
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Fatal(d)
	}

	// What we write today is the same, byte for byte. (Not so for a compressed
	// body: another version of the library may find another encoding.)
	off, prev := 0, uint32(0)
	for i, f := range goldenFrames() {
		size, n := binary.Uvarint(segment[off:])
		entry := segment[off : off+n+int(size)]
		if f.Flags&FlagCompressed == 0 {
			b, _ := appendFrame(nil, &f, &testStore, prev, f.Body)
			if !bytes.Equal(appendEntry(nil, b), entry) {
				t.Fatalf("format of frame %d changed:\n%s", i, hex.Dump(b))
			}
		}
		off += len(entry)
		prev = binary.LittleEndian.Uint32(segment[off-4:])
	}
}

// The golden log opens and goes on.
func TestGoldenLogOpens(t *testing.T) {
	o := options(t)
	o.SegmentSize = DefaultSegmentSize
	files{segmentName(1): golden(t, "segment-v1.hex", nil)}.write(t, o.Dir)
	l, r := mustReport(t, o)
	if !r.Clean || r.First != 1000 || r.Last != 1103 {
		t.Fatalf("%+v", r)
	}
	if err := l.Commit(frame(1103, 2)); err != nil {
		t.Fatal(err)
	}
	rec, err := l.ReadRecord(1050, nil)
	if err != nil || string(rec) != `{"device":"sensor-47","temperature":21.5,"humidity":40}` {
		t.Fatalf("%q, %v", rec, err)
	}
	if rec, err = l.ReadRecord(1105, rec[:0]); err != nil || !bytes.Equal(rec, record(1105)) {
		t.Fatalf("%q, %v", rec, err)
	}
}

// A frame of a version to come: it must say so, not "corrupt".
func TestGoldenFutureVersion(t *testing.T) {
	future := golden(t, "segment-v2.hex", func() []byte {
		h := binary.LittleEndian.AppendUint32(nil, frameMagic)
		h = append(h, 2, 0x40, 96, 0)
		h = append(h, testStore[:]...)
		h = append(h, bytes.Repeat([]byte("?"), 96-len(h)-4)...)
		h = binary.LittleEndian.AppendUint32(h, crc32.Checksum(h, castagnoli))
		return appendEntry(nil, append(h, "a body and a trailer of the future"...))
	})
	o := options(t)
	mustClose(t, mustOpen(t, o))
	today := readFiles(t, o.Dir)[segmentName(1)]
	for _, k := range []struct {
		name string
		disk files
	}{
		{"alone", files{segmentName(1): future}},
		{"at the end", files{segmentName(1): append(bytes.Clone(today), future...)}},
		{"behind damage", files{segmentName(1): append(append(bytes.Clone(today), "torn?"...), future...)}},
		{"unknown flag", files{segmentName(1): withFlags(today, 0x80)}},
	} {
		t.Run(k.name, func(t *testing.T) {
			k.disk.write(t, o.Dir)
			_, _, err := Open(o)
			var corrupt *CorruptError
			if !errors.Is(err, ErrVersion) || errors.As(err, &corrupt) {
				t.Fatal(err)
			}
			if !readFiles(t, o.Dir).equal(k.disk) {
				t.Fatal("files were modified")
			}
		})
	}
	t.Run("another store's", func(t *testing.T) {
		o := o
		o.StoreID[0]++
		files{segmentName(1): future}.write(t, o.Dir)
		if _, _, err := Open(o); !errors.Is(err, ErrForeign) {
			t.Fatal(err)
		}
	})
	// Damage must not look like a newer version.
	for off := range future[1:] {
		for bit := range 8 {
			b := bytes.Clone(future)
			b[off+1] ^= 1 << bit
			var h header
			if err := decodeHeader(b[1:], &h); errors.Is(err, ErrVersion) && off < 96 {
				t.Fatalf("byte %d bit %d: %v", off, bit, err)
			}
		}
	}
}

// withFlags sets the flags of the first frame of a segment.
func withFlags(segment []byte, flags byte) []byte {
	b := bytes.Clone(segment)
	b[1+5] = flags
	binary.LittleEndian.PutUint32(b[1+headerSize-4:], crc32.Checksum(b[1:1+headerSize-4], castagnoli))
	return b
}

func TestRecords(t *testing.T) {
	long := bytes.Repeat([]byte("x"), 200)
	body := AppendRecord(AppendRecord(AppendRecord(nil, []byte("a")), nil), long)
	f := Frame{First: 10, Count: 3, Body: body}
	if err := f.check(len(body)); err != nil {
		t.Fatal(err)
	}
	var got []string
	err := f.Records(func(index uint64, rec []byte) error {
		got = append(got, fmt.Sprintf("%d %s", index, rec))
		return nil
	})
	if want := []string{"10 a", "11 ", "12 " + string(long)}; err != nil || !cmp.Equal(want, got) {
		t.Fatalf("%v, %v", got, err)
	}
	stop := errors.New("stop")
	if err := f.Records(func(uint64, []byte) error { return stop }); !errors.Is(err, stop) {
		t.Fatal(err)
	}
	for _, bad := range []Frame{
		{Count: 2, Body: body},
		{Count: 4, Body: body},
		{Count: 3, Body: body[:len(body)-1]},
		{Count: 1, Body: []byte{0x80}},
		{Count: 1, Body: []byte{5, 1, 2}},
		{Count: 1, Body: bytes.Repeat([]byte{0xff}, 12)},
		{Count: 1},
	} {
		if err := bad.Records(func(uint64, []byte) error { return nil }); !errors.Is(err, ErrBody) {
			t.Errorf("%d records in %x: %v", bad.Count, bad.Body, err)
		}
		if err := bad.check(1 << 20); !errors.Is(err, ErrInvalid) {
			t.Errorf("%d records in %x: %v", bad.Count, bad.Body, err)
		}
	}
}

// A frame that is not well formed is refused before anything is written, and
// the log goes on.
func TestCommitRefusesInvalidFrames(t *testing.T) {
	o := options(t)
	o.FrameMax = 500
	l := mustOpen(t, o)
	size := l.Bytes()
	for _, f := range []*Frame{
		{},
		{Count: 1},
		{Count: 2, Body: AppendRecord(nil, []byte("one"))},
		{Count: 1, Body: AppendRecord(nil, make([]byte, 499))},
	} {
		if err := l.Commit(f); !errors.Is(err, ErrInvalid) || errors.Is(err, ErrPoisoned) {
			t.Errorf("%+v: %v", f, err)
		}
	}
	if l.Bytes() != size || l.Last() != 0 {
		t.Fatalf("%d bytes, last %d", l.Bytes(), l.Last())
	}
	commit(t, l, 2)
	verify(t, l, 1, 2)
}

// The frame's CRC has to bind the header, or the chain of CRCs binds nothing:
// the CRC over a header that contains its own CRC would be a constant.
func TestFrameCRCBindsHeader(t *testing.T) {
	seen := map[uint32]uint64{}
	for first := range uint64(1000) {
		_, crc := appendFrame(nil, &Frame{First: first + 1, Durable: first, Flags: FlagMark}, &testStore, 0, nil)
		if other, ok := seen[crc]; ok {
			t.Fatalf("marks at %d and %d have the same CRC", first, other)
		}
		seen[crc] = first
	}
}

func TestParseSyncMode(t *testing.T) {
	for text, want := range map[string]SyncMode{
		"always": SyncAlways, "never": SyncNever, "100ms": SyncEvery(100e6), "every 100ms": SyncEvery(100e6),
		"every 1s": SyncEvery(1e9), "1ms": SyncEvery(1e6), "1h": SyncEvery(3600e9),
	} {
		got, err := ParseSyncMode(text)
		if err != nil || got != want {
			t.Errorf("%q: %v, %v", text, got, err)
		}
		var again SyncMode
		b, err := got.MarshalText()
		if err == nil {
			err = again.UnmarshalText(b)
		}
		if err != nil || again != got {
			t.Errorf("%q: %v, %v", b, again, err)
		}
	}
	for _, text := range []string{"", "sometimes", "every", "0s", "-1s", "10us", "2h", "100"} {
		if m, err := ParseSyncMode(text); err == nil {
			t.Errorf("%q: %v", text, m)
		}
	}
}

func TestOptionsValidate(t *testing.T) {
	for name, o := range map[string]Options{
		"no directory":  {},
		"segment small": {Dir: "x", SegmentSize: 10},
		"segment large": {Dir: "x", SegmentSize: 2 << 30},
		"sync":          {Dir: "x", Sync: SyncEvery(1)},
		"frame":         {Dir: "x", FrameMax: MaxBody + 1},
		"frame below 0": {Dir: "x", FrameMax: -1},
		"compress":      {Dir: "x", Compress: 9},
	} {
		if _, _, err := Open(o); err == nil || !strings.HasPrefix(err.Error(), "wal: options: ") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
