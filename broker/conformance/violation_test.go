package conformance

import (
	"context"
	"io"
	"log/slog"
	"maps"
	"regexp"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/wind-c/comqtt/v3/broker"
	"github.com/wind-c/comqtt/v3/broker/packets"
)

// breach is a line of the broker's log about something a client did wrong.
type breach struct {
	statement, code string
}

// journal keeps what a broker logs about broken rules, by the address of the
// client. It is the broker's slog.Handler.
type journal struct {
	mu sync.Mutex
	by map[string][]breach
}

func (j *journal) Enabled(context.Context, slog.Level) bool { return true }
func (j *journal) WithAttrs([]slog.Attr) slog.Handler       { return j }
func (j *journal) WithGroup(string) slog.Handler            { return j }

func (j *journal) Handle(_ context.Context, r slog.Record) error {
	if r.Message != "protocol violation" || r.Level != slog.LevelDebug {
		return nil
	}
	var b breach
	var remote string
	r.Attrs(func(a slog.Attr) bool {
		switch a.Key {
		case "statement":
			b.statement = a.Value.String()
		case "code":
			b.code = a.Value.String()
		case "remote":
			remote = a.Value.String()
		}
		return true
	})
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.by == nil {
		j.by = make(map[string][]breach)
	}
	j.by[remote] = append(j.by[remote], b)
	return nil
}

func (j *journal) of(remote string) []breach {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.by[remote]
}

// statementForm is how a broken rule is named: by its number, or by its
// section where it has none, with the version that alone has it.
var statementForm = regexp.MustCompile(`^(3\.1:|3\.1\.1:)?(MQTT-\d+[.-]\d+[.-]\d+-\d+|\d+(\.\d+)*)$`)

// faults are the reason codes that say that a client broke a rule.
var faults = map[packets.Code]bool{
	packets.CodeMalformedPacket: true, packets.CodeProtocolError: true, packets.CodeTopicAliasInvalid: true,
	packets.CodeReceiveMaximumExceeded: true, packets.CodeKeepAliveTimeout: true, packets.CodeUnsupportedProtocolVersion: true,
	packets.CodeClientIdentifierNotValid: true,
}

// blames returns the broker's lines about this connection; ports are used again.
func (c *client) blames() []breach {
	return c.journal.of(c.nc.LocalAddr().String())[c.before:]
}

// blamed checks that the last thing the broker has logged about this connection
// is which statement the client broke, and the code. Codes that are no faults of
// the client need no line.
func (c *client) blamed(codes ...packets.Code) {
	c.t.Helper()
	for _, code := range codes {
		if !faults[code] {
			return
		}
	}
	if c.journal == nil {
		return
	}
	lines := c.blames()
	if len(lines) == 0 || !statementForm.MatchString(lines[len(lines)-1].statement) {
		c.t.Fatalf("rejected with %v, and the log says %v", codes, lines)
	}
	for _, code := range codes {
		if c.v != packets.V5 || lines[len(lines)-1].code == code.String() { // MQTT 3 is told no code
			return
		}
	}
	c.t.Fatalf("rejected with %v, and the log says %v", codes, lines)
}

// A breach of each kind ends the connection, or not, with the reason code that
// the specification names, is counted under its statement, and logged.
//
// Proves 5.0 [MQTT-4.13.1-1] [§4.13.1]; 3.1.1 [MQTT-4.8.0-1].
func TestViolations_CountedAndLogged(t *testing.T) {
	t.Parallel()
	in := start(t, func(o *broker.Options) {
		o.Limits.ReceiveMaximum, o.Limits.TopicAliasMaximum = 2, 3
	})
	publish := func(flags byte, topic string, rest ...byte) []byte {
		return packet(0x30|flags, append(str(topic), rest...))
	}
	three := append(append(publish(4, "a", 0, 1, 0), publish(4, "a", 0, 2, 0)...), publish(4, "a", 0, 3, 0)...)
	filter := func(f string, options byte) []byte {
		return packet(0x82, append(append([]byte{0, 1, 0}, str(f)...), options))
	}
	const (
		malformed = packets.CodeMalformedPacket
		protocol  = packets.CodeProtocolError
	)
	cases := []struct {
		send      []byte
		code      packets.Code
		statement string
	}{
		// What one packet says.
		{[]byte{0x30, 0xff, 0xff, 0xff, 0xff, 0x01}, malformed, "1.5.5"},
		{[]byte{0x30, 0x80, 0x00}, malformed, "MQTT-1.5.5-1"},
		{[]byte{0x00, 0}, malformed, "2.1.2"},
		{[]byte{0xc1, 0}, malformed, "MQTT-2.1.3-1"},
		{[]byte{0x41, 2, 0, 1}, malformed, "MQTT-2.1.3-1"},
		{[]byte{0x60, 2, 0, 1}, malformed, "MQTT-3.6.1-1"},
		{packet(0x80, filter("a", 0)[2:]), malformed, "MQTT-3.8.1-1"},
		{packet(0xa0, append([]byte{0, 1, 0}, str("a")...)), malformed, "MQTT-3.10.1-1"},
		{[]byte{0xe1, 0}, malformed, "MQTT-3.14.1-1"},
		{publish(6, "a", 0, 1, 0), malformed, "MQTT-3.3.1-4"},
		{publish(8, "a", 0), malformed, "MQTT-3.3.1-2"},
		{publish(0, "a+", 0), packets.CodeTopicNameInvalid, "MQTT-3.3.2-2"},
		{publish(0, "", 0), protocol, "3.3.2.1"},
		{publish(0, "a\x00", 0), malformed, "MQTT-1.5.4-2"},
		{publish(0, "\xff", 0), malformed, "MQTT-1.5.4-1"},
		{publish(2, "a", 0, 0, 0), protocol, "MQTT-2.2.1-3"},
		{publish(0, "a", 3, 0x23, 0, 0), packets.CodeTopicAliasInvalid, "MQTT-3.3.2-8"},
		{publish(0, "a", 2, 0x0b, 1), protocol, "MQTT-3.3.4-6"},
		{publish(0, "a", 4, 1, 0, 1, 0), protocol, "3.3.2.3"},
		{publish(0, "a", 1, 0x7f), malformed, "2.2.2.2"},
		{[]byte{0x30, 1, 0}, malformed, "MQTT-4.13.1-1"},
		{packet(0x82, []byte{0, 1, 0}), protocol, "MQTT-3.8.3-2"},
		{filter("a", 0x40), malformed, "MQTT-3.8.3-5"},
		{filter("a", 3), protocol, "3.8.3.1"},
		{filter("$share/g/a", 4), protocol, "MQTT-3.8.3-4"},
		{filter("", 0), packets.CodeTopicFilterInvalid, "MQTT-4.7.3-1"},
		{packet(0xa2, []byte{0, 1, 0}), protocol, "MQTT-3.10.3-2"},
		{[]byte{0x40, 3, 0, 1, 0x92}, protocol, "MQTT-3.4.2-1"},
		{[]byte{0x50, 3, 0, 1, 1}, protocol, "MQTT-3.5.2-1"},
		{[]byte{0x62, 3, 0, 1, 0x87}, protocol, "MQTT-3.6.2-1"},
		{[]byte{0x70, 3, 0, 1, 0x87}, protocol, "MQTT-3.7.2-1"},
		{[]byte{0xe0, 1, 0x8b}, protocol, "MQTT-3.14.2-1"},
		// What contradicts what was said before.
		{(&packets.Connect{ClientID: []byte("x"), CleanStart: true}).AppendTo(nil, packets.V5), protocol, "MQTT-3.1.0-2"},
		{[]byte{0xf0, 0}, protocol, "MQTT-4.12.0-7"},
		{[]byte{0x20, 3, 0, 0, 0}, protocol, "2.1.2"},
		{[]byte{0x90, 4, 0, 1, 0, 0}, protocol, "2.1.2"},
		{[]byte{0xb0, 4, 0, 1, 0, 0}, protocol, "2.1.2"},
		{[]byte{0xd0, 0}, protocol, "2.1.2"},
		{publish(0, "a", 3, 0x23, 0, 4), packets.CodeTopicAliasInvalid, "MQTT-3.3.2-9"},
		{publish(0, "", 3, 0x23, 0, 2), protocol, "3.3.2.3.4"},
		{three, packets.CodeReceiveMaximumExceeded, "MQTT-3.3.4-7"},
		{[]byte{0xe0, 7, 0, 5, 0x11, 0, 0, 0, 9}, protocol, "3.14.2.2.2"},
		// What is answered without an end.
		{filter("a#", 0), 0, "MQTT-4.7.1-1"},
		{filter("a/b+", 0), 0, "MQTT-4.7.1-2"},
		{filter("$share//a", 0), 0, "MQTT-4.8.2-1"},
		{filter("$share/g", 0), 0, "MQTT-4.8.2-2"},
		{packet(0xa2, append([]byte{0, 1, 0}, str("#/a")...)), 0, "MQTT-4.7.1-1"},
	}
	for i, tc := range cases {
		for _, long := range []bool{false, true} {
			var home []with
			if long && tc.statement != "3.14.2.2.2" {
				home = append(home, durable(packets.V5))
			}
			c := in.connect(t, packets.V5, "violator"+strconv.Itoa(i), home...)
			before := in.srv.Info().Violations
			c.write(tc.send)
			if tc.code == 0 {
				c.alive()
				c.pending = nil
			} else {
				for d, ok := c.next().(*packets.Disconnect); ; d, ok = c.next().(*packets.Disconnect) {
					if ok && d.Code != tc.code {
						t.Fatalf("% x: DISCONNECT with %s, want %s", tc.send, d.Code, tc.code)
					}
					if ok {
						break
					}
				}
				c.closed()
			}
			in.counted(t, c, before, tc.statement)
		}
	}
}

// counted checks that since before one breach was counted and logged, of this
// client.
func (in *instance) counted(t *testing.T, c *client, before map[string]uint64, statement string) {
	t.Helper()
	want := maps.Clone(before)
	if want == nil {
		want = make(map[string]uint64)
	}
	want[statement]++
	if got := in.srv.Info().Violations; !maps.Equal(got, want) {
		t.Fatalf("counted %v, want %v", got, want)
	}
	lines := c.blames()
	if len(lines) != 1 || lines[0].statement != statement {
		t.Fatalf("logged %v, want %s", lines, statement)
	}
}

// The same for what is wrong with the first packet, for MQTT 3, and for
// silence.
//
// Proves 5.0 [MQTT-4.13.1-1] [MQTT-3.1.4-1]; 3.1.1 [MQTT-4.8.0-1] [MQTT-3.1.4-1].
func TestViolations_FirstPacket(t *testing.T) {
	t.Parallel()
	in := start(t, func(o *broker.Options) { o.Limits.ConnectTimeout = time.Second })
	none := packets.Code(0)
	for _, tc := range []struct {
		v         packets.Version // 0: before a CONNECT; else connected
		send      []byte
		code      packets.Code // of the CONNACK; 0 = closed without one
		statement string
	}{
		{0, []byte{0xc0, 0}, none, "MQTT-3.1.0-1"},
		{0, []byte("GET / HTTP/1.1\r\n\r\n"), none, "MQTT-3.1.0-1"},
		{0, nil, none, "3.1.4"},
		{0, []byte{0x10}, none, "3.1.4"},
		{0, packet(0x11, connectBytes("MQTT", 5, 2, []byte{0}, str("x"))[2:]), none, "MQTT-2.1.3-1"},
		{0, connectBytes("MQTX", 5, 2, []byte{0}, str("x")), packets.CodeUnsupportedProtocolVersion, "MQTT-3.1.2-1"},
		{0, connectBytes("MQTT", 6, 2, []byte{0}, str("x")), packets.CodeUnsupportedProtocolVersion, "MQTT-3.1.2-2"},
		{0, connectBytes("MQTT", 5, 3, []byte{0}, str("x")), packets.CodeMalformedPacket, "MQTT-3.1.2-3"},
		{0, connectBytes("MQTT", 5, 2|8, []byte{0}, str("x")), packets.CodeMalformedPacket, "MQTT-3.1.2-11"},
		{0, connectBytes("MQTT", 5, 2|4|0x18, []byte{0}, str("x"), []byte{0}, str("w"), str("")), packets.CodeMalformedPacket, "MQTT-3.1.2-12"},
		{0, connectBytes("MQTT", 5, 2|0x20, []byte{0}, str("x")), packets.CodeMalformedPacket, "MQTT-3.1.2-13"},
		{0, connectBytes("MQTT", 5, 2, []byte{3, 0x21, 0, 0}, str("x")), packets.CodeProtocolError, "3.1.2.11"},
		{0, connectBytes("MQTT", 5, 2, []byte{0}, str("x"), []byte{0}), packets.CodeMalformedPacket, "MQTT-4.13.1-1"},
		{packets.V311, []byte{0x10, 1, 0}, none, "MQTT-3.1.0-2"},
		{packets.V311, []byte{0xf0, 0}, none, "3.1.1:2.2.1"},
		{packets.V311, packet(0x82, append(append([]byte{0, 1}, str("a")...), 3)), none, "3.1.1:MQTT-3-8.3-4"},
		{packets.V311, []byte{0x36, 0}, none, "MQTT-3.3.1-4"},
		{packets.V31, packet(0x82, append(append([]byte{0, 1}, str("a#")...), 0)), none, "MQTT-4.7.1-1"},
	} {
		var c *client
		if tc.v != 0 {
			c = in.connect(t, tc.v, name(t))
		} else {
			c = in.dial(t)
			if c.v = packets.V5; tc.code == none {
				c.v = packets.V311
			}
		}
		before := in.srv.Info().Violations
		if len(tc.send) > 0 {
			c.write(tc.send)
		}
		if tc.code != none {
			if ack := want[*packets.Connack](c); ack.Code != tc.code {
				t.Fatalf("% x: CONNACK with %s, want %s", tc.send, ack.Code, tc.code)
			}
		}
		c.closed()
		in.counted(t, c, before, tc.statement)
	}
	before := in.srv.Info().Violations
	c := in.connect(t, packets.V311, name(t), keepAlive(1))
	c.closed()
	in.counted(t, c, before, "MQTT-3.1.2-22")
}

// A client that reads late, after it has sent much more than the broker read,
// still learns why its connection was closed.
//
// Proves 5.0 [MQTT-4.13.1-1] [§4.13.1].
func TestDisconnect_ArrivesBehindUnreadBytes(t *testing.T) {
	t.Parallel()
	in := shared(t)
	much := make([]byte, 512<<10)
	for range 20 {
		c := in.connect(t, packets.V5, name(t))
		if err := c.nc.SetWriteDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		if _, err := c.nc.Write(append([]byte{0x36, 0}, much...)); err != nil {
			t.Fatalf("the broker does not take what comes behind: %v", err)
		}
		if d := want[*packets.Disconnect](c); d.Code != packets.CodeMalformedPacket {
			t.Fatalf("got %s", describe(d))
		}
		if _, err := c.nc.Read(make([]byte, 1)); err != io.EOF {
			t.Fatalf("after the DISCONNECT: %v, want an orderly end", err)
		}
		// A taken-over connection, whose client goes on sending.
		c = in.connect(t, packets.V5, name(t))
		id := c.strict.connect.ClientID
		in.connect(t, packets.V5, string(id))
		if _, err := c.nc.Write(make([]byte, 64<<10)); err != nil {
			t.Fatalf("the broker does not take what comes behind: %v", err)
		}
		if d := want[*packets.Disconnect](c); d.Code != packets.CodeSessionTakenOver {
			t.Fatalf("got %s", describe(d))
		}
		// A refused one.
		c = in.dial(t)
		if _, err := c.nc.Write(append(connectBytes("MQTT", 5, 3, []byte{0}, str("x")), much...)); err != nil {
			t.Fatalf("the broker does not take what comes behind: %v", err)
		}
		if a := want[*packets.Connack](c); a.Code != packets.CodeMalformedPacket {
			t.Fatalf("got %s", describe(a))
		}
	}
}

// The acknowledgement of another QoS, or one out of turn, is a protocol error
// and acknowledges nothing.
//
// Proves 5.0 [MQTT-4.3.3-3] [MQTT-4.3.3-5] [MQTT-4.3.3-6]; 3.1.1 [MQTT-4.3.3-1].
func TestQoS2_MQTT_4_3_3_3_WrongAck(t *testing.T) {
	t.Parallel()
	versions(t, func(t *testing.T, v packets.Version) {
		kinds(t, v, func(t *testing.T, home ...with) {
			p, s, topic := pair(t, v, 2, home...)
			long := len(home) > 0
			id := string(s.strict.connect.ClientID)
			again := func() {
				s = shared(t).connect(t, v, id, home...)
				if !long {
					s.mustSubscribe(topic, 2)
				}
			}
			for _, step := range []packets.Type{packets.TypePuback, packets.TypePubcomp} { // before PUBREC
				p.publish(message(topic, 2, step.String()))
				m := s.see(topic, step.String())
				s.send(&packets.Ack{Type: step, PacketID: m.PacketID})
				s.rejected(packets.CodeProtocolError)
				again()
				if long { // it is still unacknowledged
					if m = s.see(topic, step.String()); !m.Dup {
						t.Fatalf("got %s, want it with DUP", describe(m))
					}
					s.complete(m)
				}
			}
			p.publish(message(topic, 2, "released"))
			m := s.see(topic, "released")
			s.send(&packets.Ack{Type: packets.TypePubrec, PacketID: m.PacketID})
			s.ack(packets.TypePubrel, m.PacketID)
			s.send(&packets.Ack{Type: packets.TypePuback, PacketID: m.PacketID}) // after PUBREC
			s.rejected(packets.CodeProtocolError)
			again()
			if long {
				s.ack(packets.TypePubrel, m.PacketID)
				s.send(&packets.Ack{Type: packets.TypePubcomp, PacketID: m.PacketID})
			}
			// A PUBCOMP does not end a QoS 1 delivery.
			p.publish(message(topic, 1, "one"))
			m = s.see(topic, "one")
			s.send(&packets.Ack{Type: packets.TypePubcomp, PacketID: m.PacketID})
			s.quiet()
			if long {
				s.cut()
				again()
				if m = s.see(topic, "one"); !m.Dup {
					t.Fatalf("got %s, want it with DUP", describe(m))
				}
			}
			s.send(&packets.Ack{Type: packets.TypePuback, PacketID: m.PacketID})
			s.quiet()
		})
	})
}
