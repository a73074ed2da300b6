package bench

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"

	"github.com/wind-c/comqtt/v3/broker/packets"
)

const (
	// batchBytes bounds one write of a publisher. It is below what a fresh
	// socket takes without blocking, so that a goroutine that both reads and
	// writes cannot wait for itself.
	batchBytes = 32 << 10
	// digits of a numbered topic.
	numberDigits = 7
	maxNumbered  = 9_999_999
)

// frames are encoded PUBLISH packets of equal size, back to back. Sequence
// number, packet identifier and the number in the topic are patched in before
// each write.
type frames struct {
	buf     []byte
	size    int // bytes of one
	count   int
	seqAt   int // offset of the sequence number in a frame
	idAt    int // of the packet identifier; 0: none
	topicAt int // of the topic's number; 0: none
}

// frameSpec says what frames to make.
type frameSpec struct {
	version packets.Version
	qos     byte
	retain  bool
	topic   string
	number  int // where in topic the digits of its number begin; 0: none
	size    int // payload
	most    int // frames that are ever sent in one write
	run     uint32
	source  uint32
}

func newFrames(s frameSpec) *frames {
	pk := packets.Publish{
		QoS: s.qos, Retain: s.retain, Topic: []byte(s.topic), PacketID: 1, Payload: make([]byte, s.size),
	}
	if s.qos == 0 {
		pk.PacketID = 0
	}
	f := &frames{size: pk.Size(s.version)}
	f.count = max(1, min(s.most, batchBytes/f.size))
	f.seqAt = f.size - s.size + 8
	topic := f.size - s.size - len(s.topic)
	if s.version >= packets.V5 {
		topic-- // property length
	}
	if s.qos > 0 {
		topic -= 2
		f.idAt = topic + len(s.topic)
	}
	if s.number > 0 {
		f.topicAt = topic + s.number
	}
	random := rand.NewPCG(uint64(s.run), uint64(s.source))
	for range f.count {
		for i := 0; i < s.size; i += 8 {
			var word [8]byte
			binary.LittleEndian.PutUint64(word[:], random.Uint64())
			copy(pk.Payload[i:], word[:])
		}
		binary.BigEndian.PutUint32(pk.Payload, s.run)
		binary.BigEndian.PutUint32(pk.Payload[4:], s.source)
		f.buf = pk.AppendTo(f.buf, s.version)
	}
	return f
}

// prepare patches the first n frames for the messages from seq on and returns
// them. n is at most count.
func (f *frames) prepare(seq uint64, n int) []byte {
	b := f.buf[:n*f.size]
	for at := 0; at < len(b); at += f.size {
		binary.BigEndian.PutUint64(b[at+f.seqAt:], seq)
		if f.idAt > 0 {
			binary.BigEndian.PutUint16(b[at+f.idAt:], packetID(seq))
		}
		seq++
	}
	return b
}

// setTopic writes the number of the topic into frame i.
func (f *frames) setTopic(i int, number uint64) {
	d := f.buf[i*f.size+f.topicAt:][:numberDigits]
	for j := numberDigits - 1; j >= 0; j-- {
		d[j] = byte('0' + number%10)
		number /= 10
	}
}

// numbered is a topic that ends in a number of fixed width, and where that
// begins.
func numbered(prefix string) (topic string, at int) {
	return fmt.Sprintf("%s%0*d", prefix, numberDigits, 0), len(prefix)
}

// packetID is the identifier of a source's message: 1 to 65535, in turn.
func packetID(seq uint64) uint16 { return uint16(seq%65535) + 1 }

// delivery is what a receiver reads of a PUBLISH.
type delivery struct {
	qos    byte
	dup    bool
	id     uint16
	run    uint32
	source uint32
	seq    uint64
}

// parse reads a PUBLISH; it reports false if the packet is not one of a bench.
func (d *delivery) parse(v packets.Version, f packets.Frame) bool {
	flags, body := f.Flags(), f.Body
	d.qos, d.dup = flags>>1&3, flags&8 != 0
	if len(body) < 2 {
		return false
	}
	at := 2 + int(binary.BigEndian.Uint16(body))
	if d.qos > 0 {
		if len(body) < at+2 {
			return false
		}
		d.id = binary.BigEndian.Uint16(body[at:])
		at += 2
	}
	if v >= packets.V5 {
		props, n := binary.Uvarint(body[min(at, len(body)):]) // the same encoding as MQTT's
		if n <= 0 || props > uint64(len(body)) {
			return false
		}
		at += n + int(props)
	}
	if len(body) < at+minSize {
		return false
	}
	p := body[at:][:minSize]
	d.run = binary.BigEndian.Uint32(p)
	d.source = binary.BigEndian.Uint32(p[4:])
	d.seq = binary.BigEndian.Uint64(p[8:])
	return true
}
