package core

import (
	"testing"

	"github.com/wind-c/comqtt/v3/session"
)

// What a start does for each entry of a backlog, and a checkpoint for each that
// has changed.
func BenchmarkChunk(b *testing.B) {
	var o session.Outbound[uint64]
	list := make([]message, PageLen)
	for i := range list {
		list[i] = message{size: 270, crc: 0x12345678, flags: 1}
		o.Push(session.Entry[uint64]{Msg: uint64(1_000_000 + i), QoS: 1}, nil, "")
	}
	name := chunkKey(new([16]byte), 5, 0)
	number := idKey(new([8]byte), 5)
	chunk, page := appendChunk(nil, &o, 0), appendPage(nil, 1<<64-1, list)
	for _, c := range []struct {
		name       string
		table      byte
		key, value []byte
	}{{"queue", TableQueue, name, chunk}, {"messages", TableMessage, number, page}} {
		b.Run("hash "+c.name, func(b *testing.B) {
			b.ReportAllocs()
			var h Hash
			for b.Loop() {
				h.Add(&worldHashKey, c.table, c.key, c.value)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/PageLen, "ns/entry")
		})
	}
	b.Run("read queue", func(b *testing.B) {
		for b.Loop() {
			r := readChunk(0, chunk)
			for r.next() {
			}
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/PageLen, "ns/entry")
	})
	b.Run("read messages", func(b *testing.B) {
		for b.Loop() {
			r := readPage(5, page)
			for r.next() {
			}
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/PageLen, "ns/entry")
	})
	b.Run("append queue", func(b *testing.B) {
		for b.Loop() {
			chunk = appendChunk(chunk[:0], &o, 0)
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/PageLen, "ns/entry")
	})
}
