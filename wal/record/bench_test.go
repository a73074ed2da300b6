package record

import "testing"

func BenchmarkPublish(b *testing.B) {
	p := &Publish{Session: 123_456, Epoch: sampleEpoch, PacketID: 777, QoS: 1, Message: make([]byte, 256)}
	rec := p.AppendTo(nil)
	b.Run("append", func(b *testing.B) {
		b.ReportAllocs()
		buf := make([]byte, 0, 512)
		for b.Loop() {
			buf = p.AppendTo(buf[:0])
		}
	})
	b.Run("decode", func(b *testing.B) {
		b.ReportAllocs()
		var q Publish
		for b.Loop() {
			if err := q.Decode(rec); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkAck(b *testing.B) {
	a := &Ack{Session: 123_456, Epoch: sampleEpoch, Runs: []Run{{1, 40}, {50, 3}}}
	rec := a.AppendTo(nil)
	b.Run("append", func(b *testing.B) {
		b.ReportAllocs()
		buf := make([]byte, 0, 512)
		for b.Loop() {
			buf = a.AppendTo(buf[:0])
		}
	})
	b.Run("decode", func(b *testing.B) {
		b.ReportAllocs()
		var q Ack
		for b.Loop() {
			if err := q.Decode(rec); err != nil {
				b.Fatal(err)
			}
		}
	})
}
