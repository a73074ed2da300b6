package bench

import (
	"fmt"
	"testing"

	"github.com/wind-c/comqtt/v3/broker/packets"
)

// What a publisher prepares, the decoder of the broker reads, and the
// receiver's own parser finds the same in it.
func TestFrames(t *testing.T) {
	for _, v := range []packets.Version{packets.V311, packets.V5} {
		for qos := range byte(3) {
			for _, size := range []int{minSize, 64, 200, 40_000} {
				t.Run(fmt.Sprintf("%s QoS %d %d B", v, qos, size), func(t *testing.T) {
					topic, at := numbered("a/b/")
					f := newFrames(frameSpec{
						version: v, qos: qos, retain: true, topic: topic + "/x", number: at,
						size: size, most: 5, run: 7, source: 3,
					})
					n := f.count
					if want := max(1, min(5, batchBytes/f.size)); n != want {
						t.Fatalf("%d frames, want %d", n, want)
					}
					const first = 65533 // identifiers wrap within the batch
					for i := range n {
						f.setTopic(i, uint64(1000+i))
					}
					checkFrames(t, f.prepare(first, n), v, qos, size, n, first)
				})
			}
		}
	}
}

func checkFrames(t *testing.T, b []byte, v packets.Version, qos byte, size, n int, first uint64) {
	t.Helper()
	for i := range n {
		f, used, _, err := packets.Next(b, 0)
		if err != nil || used == 0 {
			t.Fatalf("frame %d: %v", i, err)
		}
		b = b[used:]
		var pk packets.Publish
		if err := pk.Decode(v, f.Flags(), f.Body); err != nil {
			t.Fatal(err)
		}
		seq := first + uint64(i)
		topic, id := fmt.Sprintf("a/b/%07d/x", 1000+i), packetID(seq)
		if qos == 0 {
			id = 0
		}
		if pk.QoS != qos || !pk.Retain || string(pk.Topic) != topic || pk.PacketID != id || len(pk.Payload) != size {
			t.Errorf("frame %d: %+v", i, pk)
		}
		var d delivery
		if !d.parse(v, f) {
			t.Fatalf("frame %d is not recognized", i)
		}
		if want := (delivery{qos: qos, id: id, run: 7, source: 3, seq: seq}); d != want {
			t.Errorf("frame %d: %+v, want %+v", i, d, want)
		}
	}
	if len(b) > 0 {
		t.Errorf("%d bytes left", len(b))
	}
}

// No cut of a packet may be taken for a message or read beyond its end.
func TestParseShort(t *testing.T) {
	for _, v := range []packets.Version{packets.V311, packets.V5} {
		f := newFrames(frameSpec{version: v, qos: 1, topic: "t", size: minSize, most: 1})
		whole, _, _, err := packets.Next(f.buf, 0)
		if err != nil {
			t.Fatal(err)
		}
		for n := range len(whole.Body) {
			var d delivery
			if d.parse(v, packets.Frame{Header: whole.Header, Body: whole.Body[:n]}) {
				t.Errorf("%s: %d of %d bytes are taken", v, n, len(whole.Body))
			}
		}
	}
	var d delivery
	if d.parse(packets.V5, packets.Frame{Header: 0x30, Body: append([]byte{0, 1, 't', 0xff, 0xff, 0xff, 0x7f}, make([]byte, 40)...)}) {
		t.Error("properties beyond the packet are taken")
	}
}

// A message costs the generator no allocation, neither sent nor received.
func TestNoAllocations(t *testing.T) {
	l := &load{o: &Options{QoS: 1}, run: 1}
	r := l.newReceiver(&conn{version: packets.V311}, &one{})
	f := newFrames(frameSpec{version: packets.V311, qos: 0, topic: "t", size: 64, most: 100, run: 1})
	r.qos = 0
	seq := uint64(0)
	n := testing.AllocsPerRun(100, func() {
		b := f.prepare(seq, f.count)
		if used, _, err := r.round(b); err != nil || used != len(b) {
			t.Fatal(used, err)
		}
		seq += uint64(f.count)
	})
	if n != 0 {
		t.Errorf("%v allocations per batch", n)
	}
	if got := r.sink.(*one).stream.tally(seq, false); !got.ok() || got.Received != seq {
		t.Errorf("%+v", got)
	}
}

func BenchmarkSend(b *testing.B) {
	f := newFrames(frameSpec{version: packets.V311, qos: 1, topic: "bench/12345678/pair/12", size: 64, most: 100, run: 1})
	b.ReportAllocs()
	for n := uint64(0); b.Loop(); n += uint64(f.count) {
		f.prepare(n, f.count)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*f.count), "ns/msg")
}

func BenchmarkReceive(b *testing.B) {
	l := &load{o: &Options{}, run: 1}
	r := l.newReceiver(&conn{version: packets.V311}, &one{})
	f := newFrames(frameSpec{version: packets.V311, topic: "bench/12345678/pair/12", size: 64, most: 100, run: 1})
	b.ReportAllocs()
	for n := uint64(0); b.Loop(); n += uint64(f.count) {
		if _, _, err := r.round(f.prepare(n, f.count)); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*f.count), "ns/msg")
}
