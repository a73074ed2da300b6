package listeners

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"testing"

	"pgregory.net/rapid"
)

// decodeIn feeds a stream to a decoder in pieces of the given sizes, the last
// one to the end, and returns what it gave: payload, control frames and error.
func decodeIn(stream []byte, sizes []int) (payload []byte, controls []string, err error) {
	d := decoder{control: func(opcode byte, p []byte) error {
		controls = append(controls, fmt.Sprintf("%x %q", opcode, p))
		if opcode == opClose {
			return io.EOF
		}
		return nil
	}}
	for err == nil && len(stream) > 0 {
		n := len(stream)
		if len(sizes) > 0 {
			n, sizes = min(max(sizes[0], 1), n), sizes[1:]
		}
		piece := bytes.Clone(stream[:n]) // decode writes to it
		stream = stream[n:]
		var got int
		got, err = d.decode(piece)
		payload = append(payload, piece[:got]...)
	}
	return payload, controls, err
}

func maskedFrame(fin bool, opcode byte, key [4]byte, payload []byte) []byte {
	b := appendFrameHeader(nil, opcode, len(payload))
	if !fin {
		b[0] &^= frameFin
	}
	b[1] |= frameMask
	b = append(b, key[:]...)
	for i, p := range payload {
		b = append(b, p^key[i%4])
	}
	return b
}

// Any messages in any fragments, cut anywhere, give their payload in order.
func TestDecoderGivesWhatWasSent(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var stream, want []byte
		var pings []string
		message := false
		for range rapid.IntRange(0, 8).Draw(t, "frames") {
			key := [4]byte(rapid.SliceOfN(rapid.Byte(), 4, 4).Draw(t, "key"))
			if rapid.Bool().Draw(t, "ping") {
				p := rapid.SliceOfN(rapid.Byte(), 0, controlMax).Draw(t, "control")
				stream = append(stream, maskedFrame(true, opPing, key, p)...)
				pings = append(pings, fmt.Sprintf("%x %q", opPing, p))
				continue
			}
			opcode, fin := byte(opBinary), rapid.Bool().Draw(t, "fin")
			if message {
				opcode = opContinuation
			}
			n := rapid.SampledFrom([]int{0, 1, 7, 8, 9, 125, 126, 300, 1<<16 - 1, 1 << 16}).Draw(t, "length")
			p := bytes.Repeat(rapid.SliceOfN(rapid.Byte(), 1, 9).Draw(t, "pattern"), n)[:n]
			stream = append(stream, maskedFrame(fin, opcode, key, p)...)
			want = append(want, p...)
			message = !fin
		}
		sizes := rapid.SliceOf(rapid.IntRange(1, 200)).Draw(t, "pieces")
		got, controls, err := decodeIn(stream, sizes)
		if err != nil || !bytes.Equal(got, want) || fmt.Sprint(controls) != fmt.Sprint(pings) {
			t.Fatalf("%d bytes of %d, controls %v, %v", len(got), len(want), controls, err)
		}
	})
}

// Whatever comes, decoding does not panic, and how it is cut changes nothing.
func FuzzDecoder(f *testing.F) {
	key := [4]byte{1, 2, 3, 4}
	whole := maskedFrame(true, opBinary, key, []byte("\x10\x0c\x00\x04MQTT"))
	f.Add(whole, []byte{1, 1, 1})
	f.Add(append(maskedFrame(false, opBinary, key, []byte("ab")), maskedFrame(true, opContinuation, key, []byte("cd"))...), []byte{3})
	f.Add(append(maskedFrame(true, opPing, key, nil), whole...), []byte{2, 5})
	f.Add(maskedFrame(true, opClose, key, []byte("\x03\xe8")), []byte{1})
	f.Add([]byte{0x82, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0}, []byte{9})
	f.Fuzz(func(t *testing.T, stream, cuts []byte) {
		sizes := make([]int, len(cuts))
		for i, c := range cuts {
			sizes[i] = int(c)
		}
		p1, c1, err1 := decodeIn(stream, nil)
		p2, c2, err2 := decodeIn(stream, sizes)
		if !bytes.Equal(p1, p2) || fmt.Sprint(c1) != fmt.Sprint(c2) || fmt.Sprint(err1) != fmt.Sprint(err2) {
			t.Fatalf("whole: %q %v %v\nin pieces: %q %v %v", p1, c1, err1, p2, c2, err2)
		}
	})
}

func TestCloseStatus(t *testing.T) {
	for payload, want := range map[string]uint16{
		"": 1000, "\x03\xe8": 1000, "\x03\xe9bye": 1001, "\x0b\xb8": 3000, "\x13\x87": 4999, "\x03\xf6": 1014,
	} {
		if got, err := closeStatus([]byte(payload)); err != nil || got != want {
			t.Errorf("%x: %d, %v", payload, got, err)
		}
	}
	for payload, want := range map[string]uint16{
		"\x03": 1002, "\x03\xe7": 1002, "\x03\xec": 1002, "\x03\xed": 1002, "\x03\xee": 1002, "\x03\xf7": 1002,
		"\x13\x88": 1002, "\x0b\xb7": 1002, "\x03\xe8\xff": 1007,
	} {
		var fe *frameError
		if _, err := closeStatus([]byte(payload)); !errors.As(err, &fe) || fe.status != want {
			t.Errorf("%x: %v", payload, err)
		}
	}
}

func TestDecodeDoesNotAllocate(t *testing.T) {
	d := decoder{}
	f := maskedFrame(true, opBinary, [4]byte{1, 2, 3, 4}, make([]byte, 1000))
	buf := make([]byte, len(f))
	if n := testing.AllocsPerRun(100, func() {
		copy(buf, f)
		if n, err := d.decode(buf); n != 1000 || err != nil {
			t.Fatal(n, err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkDecode(b *testing.B) {
	for _, size := range []int{64, 16 << 10} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			d := decoder{}
			f := maskedFrame(true, opBinary, [4]byte{1, 2, 3, 4}, make([]byte, size))
			buf := make([]byte, len(f))
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				copy(buf, f)
				if _, err := d.decode(buf); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
