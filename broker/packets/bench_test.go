package packets

import (
	"bytes"
	"testing"
)

func BenchmarkDecode(b *testing.B) {
	var d decoders
	for _, c := range hot() {
		b.Run(c.version.String()+"/"+c.name, func(b *testing.B) {
			data := wire(c.wire)
			b.ReportAllocs()
			for b.Loop() {
				f, _, _, _ := Next(data, 1<<20)
				if err := d.decode(c.version, f); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkAppend(b *testing.B) {
	for _, c := range hot() {
		b.Run(c.version.String()+"/"+c.name, func(b *testing.B) {
			buf := make([]byte, 0, 4096)
			b.ReportAllocs()
			for b.Loop() {
				buf = c.packet.AppendTo(buf[:0], c.version)
			}
		})
	}
}

// A 64 KiB read buffer full of small publishes: the hot path of a reader.
func BenchmarkNextAndDecodeBuffer(b *testing.B) {
	for _, v := range []Version{V311, V5} {
		b.Run(v.String(), func(b *testing.B) {
			p := Publish{QoS: 1, PacketID: 1, Topic: []byte("site/12/line/3/sensor/temperature"), Payload: make([]byte, 64)}
			one := p.AppendTo(nil, v)
			buffer := bytes.Repeat(one, 1<<16/len(one))
			n := len(buffer) / len(one)
			b.SetBytes(int64(len(buffer)))
			for b.Loop() {
				for rest := buffer; ; {
					f, size, _, err := Next(rest, 1<<20)
					if size == 0 {
						break
					}
					if err == nil {
						err = p.Decode(v, f.Flags(), f.Body)
					}
					if err != nil {
						b.Fatal(err)
					}
					rest = rest[size:]
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/packet")
		})
	}
}

func benchMessage(props string) Message {
	return Message{Topic: []byte("site/12/line/3/sensor/temperature"), Props: wire(props), Payload: make([]byte, 64)}
}

func BenchmarkAppendMessage(b *testing.B) {
	for name, body := range map[string]string{
		"bare":      "00",
		"stored":    sec(stored),
		"transport": sec(transport),
	} {
		b.Run(name, func(b *testing.B) {
			var p Publish
			if err := p.Decode(V5, 0, append(wire(str("site/12/line/3/sensor/temperature")+body), make([]byte, 64)...)); err != nil {
				b.Fatal(err)
			}
			buf := make([]byte, 0, 4096)
			for b.Loop() {
				buf = p.AppendMessage(buf[:0], nil)
			}
		})
	}
}

func BenchmarkParseMessage(b *testing.B) {
	m := benchMessage(stored)
	data := m.AppendTo(nil)
	for b.Loop() {
		if _, err := ParseMessage(data); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDelivery(b *testing.B) {
	m := benchMessage(stored)
	for _, c := range []struct {
		name string
		d    Delivery
	}{
		{"3.1.1 QoS 0", Delivery{Version: V311}},
		{"3.1.1 QoS 1", Delivery{Version: V311, QoS: 1, PacketID: 7}},
		{"5.0 QoS 0", Delivery{Version: V5}},
		{"5.0 QoS 1", Delivery{Version: V5, QoS: 1, PacketID: 7}},
		{"5.0 QoS 1 all", Delivery{Version: V5, QoS: 1, PacketID: 7, TopicAlias: 1, HasExpiry: true, Expiry: 9, SubscriptionIDs: []uint32{1}}},
	} {
		b.Run(c.name, func(b *testing.B) {
			buf := make([]byte, 0, 4096)
			b.ReportAllocs()
			for b.Loop() {
				buf = c.d.AppendTo(buf[:0], &m)
			}
		})
	}
}

func BenchmarkPatchPublish(b *testing.B) {
	m := benchMessage(stored)
	d := Delivery{Version: V5, QoS: 1, PacketID: 7}
	encoded, at := d.AppendTo(nil, &m), d.PacketIDOffset(&m)
	buf := make([]byte, 0, 4096)
	var id uint16
	for b.Loop() {
		id++
		buf = append(buf[:0], encoded...)
		PatchPublish(buf, at, id, false)
	}
}
