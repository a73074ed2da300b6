package packets

import "testing"

// hot is the traffic a broker sees most, one packet of each kind.
func hot() []packetCase {
	var list []packetCase
	for _, c := range allCases() {
		switch {
		case c.decodeOnly:
		case c.version == V31:
		default:
			list = append(list, c)
		}
	}
	return list
}

// decoders are the structs a connection reuses.
type decoders struct {
	connect     Connect
	connack     Connack
	publish     Publish
	ack         Ack
	subscribe   Subscribe
	suback      Suback
	unsubscribe Unsubscribe
	unsuback    Unsuback
	disconnect  Disconnect
	auth        Auth
}

func (d *decoders) decode(v Version, f Frame) error {
	switch t := f.Type(); t {
	case TypeConnect:
		return d.connect.Decode(f.Flags(), f.Body)
	case TypeConnack:
		return d.connack.Decode(v, f.Flags(), f.Body)
	case TypePublish:
		return d.publish.Decode(v, f.Flags(), f.Body)
	case TypePuback, TypePubrec, TypePubrel, TypePubcomp:
		d.ack.Type = t
		return d.ack.Decode(v, f.Flags(), f.Body)
	case TypeSubscribe:
		return d.subscribe.Decode(v, f.Flags(), f.Body)
	case TypeSuback:
		return d.suback.Decode(v, f.Flags(), f.Body)
	case TypeUnsubscribe:
		return d.unsubscribe.Decode(v, f.Flags(), f.Body)
	case TypeUnsuback:
		return d.unsuback.Decode(v, f.Flags(), f.Body)
	case TypeDisconnect:
		return d.disconnect.Decode(v, f.Flags(), f.Body)
	case TypeAuth:
		return d.auth.Decode(v, f.Flags(), f.Body)
	}
	return CheckPing(f.Flags(), f.Body)
}

// Nothing on the way in or out allocates, whatever the packet, once the
// structs and buffers have been used.
func TestNoAllocations(t *testing.T) {
	var d decoders
	buf := make([]byte, 0, 4096)
	for _, c := range hot() {
		b := wire(c.wire)
		if n := testing.AllocsPerRun(100, func() {
			f, _, _, err := Next(b, 1<<20)
			if err == nil {
				err = d.decode(c.version, f)
			}
			if err != nil {
				t.Fatal(err)
			}
		}); n != 0 {
			t.Errorf("%v %s: decoding takes %v allocations", c.version, c.name, n)
		}
		if n := testing.AllocsPerRun(100, func() { buf = c.packet.AppendTo(buf[:0], c.version) }); n != 0 {
			t.Errorf("%v %s: encoding takes %v allocations", c.version, c.name, n)
		}
	}
}

func TestNoAllocationsForMessages(t *testing.T) {
	var p Publish
	if err := p.Decode(V5, 2, wire(str("a/b")+"0001"+sec(transport)+"'hi'")); err != nil {
		t.Fatal(err)
	}
	buf, out := make([]byte, 0, 4096), make([]byte, 0, 4096)
	ids := []uint32{1, 2}
	for name, f := range map[string]func(){
		"AppendMessage": func() { buf = p.AppendMessage(buf[:0], nil) },
		"ParseMessage and Delivery": func() {
			m, err := ParseMessage(p.AppendMessage(buf[:0], nil))
			if err != nil {
				t.Fatal(err)
			}
			for _, v := range all {
				d := Delivery{Version: v, QoS: 1, PacketID: 9, HasExpiry: true, TopicAlias: 1, SubscriptionIDs: ids}
				out = d.AppendTo(out[:0], &m)
				PatchPublish(out, d.PacketIDOffset(&m), 10, true)
			}
		},
		"AppendAck": func() { out = AppendAck(out[:0], V5, TypePuback, 1, CodeQuotaExceeded) },
		"user properties": func() {
			n := 0
			for name, value := range p.Props.User.All() {
				n += len(name) + len(value)
			}
			if n != 4 {
				t.Fatal(n)
			}
		},
	} {
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s takes %v allocations", name, n)
		}
	}
}

// A long packet that has to be moved by a byte or two does not allocate
// either.
func TestNoAllocationsForLongPackets(t *testing.T) {
	c := Connect{ClientID: make([]byte, 300), HasPassword: true, Password: make([]byte, 300)}
	c.Props.User = user("key", string(make([]byte, 300)))
	buf := make([]byte, 0, 4096)
	if n := testing.AllocsPerRun(100, func() { buf = c.AppendTo(buf[:0], V5) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
