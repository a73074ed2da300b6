package backends

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"os"
	"testing"
)

var goldenMark = Mark{
	StoreID: [16]byte{0xa0, 0xa1, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7, 0xa8, 0xa9, 0xaa, 0xab, 0xac, 0xad, 0xae, 0xaf},
	Applied: 0x0102030405060708,
	Hash:    [16]byte{0xf0, 0xf1, 0xf2, 0xf3, 0xf4, 0xf5, 0xf6, 0xf7, 0xf8, 0xf9, 0xfa, 0xfb, 0xfc, 0xfd, 0xfe, 0xff},
	Sealed:  true,
	Schema:  1,
	LogTime: 1_800_000_000_123,
}

// TestGoldenMarkV1: the encoding is on the disks of others; the file is never
// edited.
func TestGoldenMarkV1(t *testing.T) {
	dump, err := os.ReadFile("testdata/mark-v1.hex")
	if err != nil {
		t.Fatal(err)
	}
	enc := EncodeMark(nil, goldenMark)
	if got := hex.Dump(enc); got != string(dump) {
		t.Errorf("encoding changed:\n%swant\n%s", got, dump)
	}
	if m, err := DecodeMark(enc); err != nil || m != goldenMark {
		t.Errorf("decoded %+v, %v", m, err)
	}
}

func TestMarkAppends(t *testing.T) {
	got := EncodeMark([]byte("head"), goldenMark)
	if !bytes.Equal(got, append([]byte("head"), EncodeMark(nil, goldenMark)...)) {
		t.Errorf("appended %x", got)
	}
	if n := testing.AllocsPerRun(100, func() { got = EncodeMark(got[:0], goldenMark) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestMarkDamage flips every bit and cuts at every length.
func TestMarkDamage(t *testing.T) {
	enc := EncodeMark(nil, goldenMark)
	for bit := range len(enc) * 8 {
		bad := bytes.Clone(enc)
		bad[bit/8] ^= 1 << (bit % 8)
		if m, err := DecodeMark(bad); !errors.Is(err, ErrDamaged) {
			t.Fatalf("bit %d flipped: %+v, %v; want ErrDamaged", bit, m, err)
		}
	}
	for n := range enc {
		if _, err := DecodeMark(enc[:n]); !errors.Is(err, ErrDamaged) {
			t.Fatalf("cut at %d: %v, want ErrDamaged", n, err)
		}
	}
}

// resealed changes a mark and gives it a valid seal, as another version would.
func resealed(enc []byte, change func(body []byte) []byte) []byte {
	body := change(bytes.Clone(enc[:len(enc)-4]))
	return binary.BigEndian.AppendUint32(body, sealSum([]byte(MarkKey), body))
}

func TestMarkVersions(t *testing.T) {
	enc := EncodeMark(nil, goldenMark)
	tests := []struct {
		name   string
		change func(body []byte) []byte
		want   error
	}{
		{"newer", func(b []byte) []byte { b[0] = 2; return b }, ErrSchema},
		{"newer and longer", func(b []byte) []byte { b[0] = 9; return append(b, 1, 2, 3) }, ErrSchema},
		{"version 0", func(b []byte) []byte { b[0] = 0; return b }, ErrDamaged},
		{"unknown flag", func(b []byte) []byte { b[1] |= 2; return b }, ErrDamaged},
		{"too long", func(b []byte) []byte { return append(b, 0) }, ErrDamaged},
	}
	for _, tt := range tests {
		if _, err := DecodeMark(resealed(enc, tt.change)); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
}

func TestCheckSchema(t *testing.T) {
	if err := (&Mark{Schema: Schema}).CheckSchema(); err != nil {
		t.Error(err)
	}
	if err := (&Mark{Schema: Schema + 1}).CheckSchema(); !errors.Is(err, ErrSchema) {
		t.Errorf("newer: %v", err)
	}
}

// FuzzDecodeMark: whatever decodes, encodes to the same bytes.
func FuzzDecodeMark(f *testing.F) {
	f.Add(EncodeMark(nil, goldenMark))
	f.Add(EncodeMark(nil, Mark{}))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, in := range [][]byte{b, binary.BigEndian.AppendUint32(bytes.Clone(b), sealSum([]byte(MarkKey), b))} {
			m, err := DecodeMark(in)
			if err == nil && !bytes.Equal(EncodeMark(nil, m), in) {
				t.Fatalf("%x decodes to %+v, which encodes differently", in, m)
			}
		}
	})
}
