package conformance

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/wind-c/comqtt/v3/broker/packets"
)

// client is one connection to a broker. It belongs to the test's goroutine.
type client struct {
	t       tester
	nc      net.Conn
	v       packets.Version
	strict  *strict
	buf     []byte
	pending []packets.Packet // read while waiting for something else
	lastPID uint16
	journal *journal // of the broker
	before  int      // lines about other connections from this address
	connack *packets.Connack
}

// dial opens a connection and sends nothing.
func (in *instance) dial(t tester) *client {
	t.Helper()
	nc, err := net.Dial("tcp", in.tcp)
	if err != nil {
		t.Fatalf("dial: %v", err)
	}
	return newClient(t, nc).under(in)
}

func newClient(t tester, nc net.Conn) *client {
	t.Cleanup(func() { nc.Close() })
	return &client{t: t, nc: nc, v: packets.V5, strict: newStrict()}
}

// under tells the client whose log is about it.
func (c *client) under(in *instance) *client {
	c.journal = in.log
	c.before = len(in.log.of(c.nc.LocalAddr().String()))
	return c
}

// with changes a CONNECT before it is sent.
type with func(c *packets.Connect)

// connect opens a connection and sends a CONNECT, with Clean Start and keep
// alive 0 unless changed, which must be accepted.
func (in *instance) connect(t tester, v packets.Version, id string, changes ...with) *client {
	t.Helper()
	c := in.dial(t)
	ack := c.hello(v, id, changes...)
	if ack.Code != packets.CodeSuccess {
		t.Fatalf("CONNECT of %s refused: %s", id, ack.Code)
	}
	return c
}

// hello sends a CONNECT and returns the answer.
func (c *client) hello(v packets.Version, id string, changes ...with) *packets.Connack {
	c.t.Helper()
	p := &packets.Connect{CleanStart: true, ClientID: []byte(id)}
	for _, change := range changes {
		change(p)
	}
	c.v = v
	c.write(p.AppendTo(nil, v))
	return c.welcome()
}

// welcome takes the CONNACK.
func (c *client) welcome() *packets.Connack {
	c.t.Helper()
	c.connack = want[*packets.Connack](c)
	return c.connack
}

// resume is for sessions that outlive the connection by some seconds: Clean
// Start 0 and a Session Expiry Interval, which MQTT 3 has not.
func resume(seconds uint32) with {
	return func(c *packets.Connect) {
		c.CleanStart = false
		c.Props.HasSessionExpiry, c.Props.SessionExpiry = true, seconds
	}
}

// fresh is resume with Clean Start 1. Only for MQTT 5.
func fresh(seconds uint32) with {
	return func(c *packets.Connect) {
		c.Props.HasSessionExpiry, c.Props.SessionExpiry = true, seconds
	}
}

func receiveMaximum(n uint16) with {
	return func(c *packets.Connect) { c.Props.HasReceiveMaximum, c.Props.ReceiveMaximum = true, n }
}

func maximumPacketSize(n uint32) with {
	return func(c *packets.Connect) { c.Props.HasMaximumPacketSize, c.Props.MaximumPacketSize = true, n }
}

func topicAliasMaximum(n uint16) with {
	return func(c *packets.Connect) { c.Props.HasTopicAliasMaximum, c.Props.TopicAliasMaximum = true, n }
}

func keepAlive(seconds uint16) with { return func(c *packets.Connect) { c.KeepAlive = seconds } }

// write sends bytes as they are.
func (c *client) write(b []byte) {
	c.t.Helper()
	if c.strict.v == 0 {
		c.strict.v = c.v
	}
	c.strict.sent(b)
	if err := c.nc.SetWriteDeadline(time.Now().Add(patience)); err != nil {
		c.t.Fatalf("write: %v", err)
	}
	if _, err := c.nc.Write(b); err != nil {
		c.t.Fatalf("write: %v", err)
	}
}

// raw sends bytes given one by one.
func (c *client) raw(b ...byte) { c.t.Helper(); c.write(b) }

// send sends a packet.
func (c *client) send(p packets.Packet) { c.t.Helper(); c.write(p.AppendTo(nil, c.v)) }

// try is send to a broker that may have closed the connection.
func (c *client) try(p packets.Packet) {
	b := p.AppendTo(nil, c.v)
	c.strict.sent(b)
	_, _ = c.nc.Write(b)
}

// errGone is the end of the connection, however the broker brought it about.
var errGone = errors.New("connection closed by the broker")

// read returns the next packet from the socket.
func (c *client) read() (packets.Packet, error) {
	c.t.Helper()
	if err := c.nc.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return nil, fmt.Errorf("%w: %w", errGone, err)
	}
	for {
		f, n, _, err := packets.Next(c.buf, 0)
		if err != nil {
			return nil, err
		}
		if n > 0 {
			raw := append([]byte(nil), c.buf[:n]...)
			c.buf = c.buf[n:]
			f.Body = raw[n-len(f.Body):]
			p, err := f.Decode(c.v)
			if err == nil {
				err = c.strict.heard(p, raw)
			}
			if err != nil {
				c.t.Fatalf("the broker sent %s % x: %v\nbefore it:\n%s", f.Type(), raw[:min(n, 64)], err, c.strict.trace())
			}
			return p, nil
		}
		chunk := make([]byte, 64<<10)
		n, err = c.nc.Read(chunk)
		c.buf = append(c.buf, chunk[:n]...)
		switch {
		case n > 0:
		case errors.Is(err, os.ErrDeadlineExceeded):
			return nil, err
		case errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, io.ErrUnexpectedEOF) || err != nil:
			if len(c.buf) > 0 {
				c.t.Fatalf("the broker closed within a packet: % x", c.buf)
			}
			return nil, fmt.Errorf("%w: %w", errGone, err)
		}
	}
}

// next returns the next packet of the broker.
func (c *client) next() packets.Packet {
	c.t.Helper()
	if len(c.pending) > 0 {
		p := c.pending[0]
		c.pending = c.pending[1:]
		return p
	}
	p, err := c.read()
	if err != nil {
		c.t.Fatalf("waiting for a packet: %v", err)
	}
	return p
}

// want returns the next packet, which must be a P.
func want[P packets.Packet](c *client) P {
	c.t.Helper()
	p := c.next()
	typed, ok := p.(P)
	if !ok {
		c.t.Fatalf("got %s, want %T", describe(p), typed)
	}
	return typed
}

// await returns the first packet that match accepts. Others wait for next.
func (c *client) await(match func(packets.Packet) bool) packets.Packet {
	c.t.Helper()
	for i, p := range c.pending {
		if match(p) {
			c.pending = append(c.pending[:i:i], c.pending[i+1:]...)
			return p
		}
	}
	for {
		p, err := c.read()
		if err != nil {
			c.t.Fatalf("waiting for an answer: %v (unclaimed: %s)", err, describe(c.pending...))
		}
		if match(p) {
			return p
		}
		c.pending = append(c.pending, p)
	}
}

// closed checks that the broker closes the connection and sends nothing more.
func (c *client) closed() {
	c.t.Helper()
	if len(c.pending) > 0 {
		c.t.Fatalf("got %s, want the end of the connection", describe(c.pending...))
	}
	p, err := c.read()
	if err == nil {
		c.t.Fatalf("got %s, want the end of the connection", describe(p))
	}
	if !errors.Is(err, errGone) {
		c.t.Fatalf("the broker does not close the connection: %v", err)
	}
}

// rejected checks that the broker ends the connection for a fault of the
// client: with a DISCONNECT that names the code for MQTT 5, without a word
// otherwise.
func (c *client) rejected(codes ...packets.Code) {
	c.t.Helper()
	if c.v != packets.V5 {
		c.closed()
		c.blamed(codes...)
		return
	}
	d := want[*packets.Disconnect](c)
	for _, code := range codes {
		if d.Code == code {
			c.closed()
			c.blamed(code)
			return
		}
	}
	c.t.Fatalf("DISCONNECT with %s, want %v", d.Code, codes)
}

// gone waits for the end of the connection, whatever comes before it.
func (c *client) gone() {
	c.t.Helper()
	for {
		_, err := c.read()
		if errors.Is(err, errGone) {
			return
		}
		if err != nil {
			c.t.Fatalf("the broker does not close the connection: %v", err)
		}
	}
}

// pid returns an identifier that the client has not used.
func (c *client) pid() uint16 {
	c.lastPID++
	return c.lastPID
}

// subscribe subscribes to one filter and returns the reason code.
func (c *client) subscribe(filter string, options byte) packets.Code {
	c.t.Helper()
	return c.subscribeID(filter, options, 0)
}

// subscribeID is subscribe with a subscription identifier.
func (c *client) subscribeID(filter string, options byte, id uint32) packets.Code {
	c.t.Helper()
	p := &packets.Subscribe{PacketID: c.pid(), Filters: []packets.Subscription{{Filter: []byte(filter), Options: options}}}
	p.Props.SubscriptionID = id
	c.send(p)
	return c.suback(p.PacketID).Codes[0]
}

func (c *client) suback(pid uint16) *packets.Suback {
	c.t.Helper()
	return c.await(func(p packets.Packet) bool {
		a, ok := p.(*packets.Suback)
		return ok && a.PacketID == pid
	}).(*packets.Suback)
}

// mustSubscribe subscribes and checks that the QoS asked for is granted.
func (c *client) mustSubscribe(filter string, options byte) {
	c.t.Helper()
	if code := c.subscribe(filter, options); byte(code) != options&3 {
		c.t.Fatalf("subscribe to %s: %s, want QoS %d", filter, code, options&3)
	}
}

// unsubscribe unsubscribes and returns the UNSUBACK.
func (c *client) unsubscribe(filters ...string) *packets.Unsuback {
	c.t.Helper()
	p := &packets.Unsubscribe{PacketID: c.pid()}
	for _, f := range filters {
		p.Filters = append(p.Filters, []byte(f))
	}
	c.send(p)
	return c.await(func(q packets.Packet) bool {
		a, ok := q.(*packets.Unsuback)
		return ok && a.PacketID == p.PacketID
	}).(*packets.Unsuback)
}

// quiet checks that the broker has sent nothing that was not taken yet. An
// UNSUBSCRIBE goes the way of everything else, in order with it; its answer
// must come next.
func (c *client) quiet() {
	c.t.Helper()
	if len(c.pending) > 0 {
		c.t.Fatalf("got %s, want nothing", describe(c.pending...))
	}
	c.unsubscribe("no/such/subscription")
	if len(c.pending) > 0 {
		c.t.Fatalf("got %s, want nothing", describe(c.pending...))
	}
}

// settled is quiet after whatever the broker is about to do by itself, such as
// publishing a will for a connection whose end it has seen.
func (c *client) settled() {
	c.t.Helper()
	c.quiet()
	c.quiet()
}

// alive checks that the broker still answers, whatever it sends besides.
func (c *client) alive() {
	c.t.Helper()
	c.send(&packets.Ping{Type: packets.TypePingreq})
	c.await(func(p packets.Packet) bool { _, ok := p.(*packets.Ping); return ok })
}

// fence waits until the broker has dealt with all that the client sent.
func (c *client) fence() {
	c.t.Helper()
	c.unsubscribe("no/such/subscription")
}

// message builds a PUBLISH.
func message(topic string, qos byte, payload string) *packets.Publish {
	return &packets.Publish{Topic: []byte(topic), QoS: qos, Payload: []byte(payload)}
}

func retained(topic string, qos byte, payload string) *packets.Publish {
	p := message(topic, qos, payload)
	p.Retain = true
	return p
}

// publish publishes and takes part in the handshake to its end. It returns the
// reason code of the PUBACK or PUBREC.
func (c *client) publish(p *packets.Publish) packets.Code {
	c.t.Helper()
	if p.QoS == 0 {
		c.send(p)
		c.fence()
		return packets.CodeSuccess
	}
	p.PacketID = c.pid()
	c.send(p)
	if p.QoS == 1 {
		return c.ack(packets.TypePuback, p.PacketID).Code
	}
	rec := c.ack(packets.TypePubrec, p.PacketID)
	if !rec.Code.IsError() {
		c.send(&packets.Ack{Type: packets.TypePubrel, PacketID: p.PacketID})
		if comp := c.ack(packets.TypePubcomp, p.PacketID); comp.Code != packets.CodeSuccess {
			c.t.Fatalf("PUBCOMP: %s", comp.Code)
		}
	}
	return rec.Code
}

// ack waits for an acknowledgement.
func (c *client) ack(t packets.Type, pid uint16) *packets.Ack {
	c.t.Helper()
	return c.await(func(p packets.Packet) bool {
		a, ok := p.(*packets.Ack)
		return ok && a.Type == t && a.PacketID == pid
	}).(*packets.Ack)
}

// take returns the next packet, a PUBLISH, and acknowledges it to the end.
func (c *client) take() *packets.Publish {
	c.t.Helper()
	p := want[*packets.Publish](c)
	c.complete(p)
	return p
}

// complete acknowledges a PUBLISH.
func (c *client) complete(p *packets.Publish) {
	c.t.Helper()
	switch p.QoS {
	case 1:
		c.send(&packets.Ack{Type: packets.TypePuback, PacketID: p.PacketID})
	case 2:
		c.send(&packets.Ack{Type: packets.TypePubrec, PacketID: p.PacketID})
		c.ack(packets.TypePubrel, p.PacketID)
		c.send(&packets.Ack{Type: packets.TypePubcomp, PacketID: p.PacketID})
	}
}

// expect takes the next PUBLISH and checks topic and payload.
func (c *client) expect(topic, payload string) *packets.Publish {
	c.t.Helper()
	p := c.take()
	if string(p.Topic) != topic || string(p.Payload) != payload {
		c.t.Fatalf("got %s, want %s %q", describe(p), topic, payload)
	}
	return p
}

// see is expect without an acknowledgement.
func (c *client) see(topic, payload string) *packets.Publish {
	c.t.Helper()
	p := want[*packets.Publish](c)
	if string(p.Topic) != topic || string(p.Payload) != payload {
		c.t.Fatalf("got %s, want %s %q", describe(p), topic, payload)
	}
	return p
}

// cut ends the connection without a DISCONNECT.
func (c *client) cut() {
	c.t.Helper()
	if err := c.nc.Close(); err != nil {
		c.t.Fatalf("close: %v", err)
	}
}

// bye sends a DISCONNECT and waits until the broker has closed.
func (c *client) bye(code packets.Code) {
	c.t.Helper()
	c.send(&packets.Disconnect{Code: code})
	c.gone()
}

// describe shows packets in failures.
func describe(list ...packets.Packet) string {
	if len(list) == 0 {
		return "nothing"
	}
	s := ""
	for i, p := range list {
		if i > 0 {
			s += ", "
		}
		switch p := p.(type) {
		case *packets.Publish:
			s += fmt.Sprintf("PUBLISH{%s %q qos %d id %d dup %v retain %v}", p.Topic, p.Payload[:min(len(p.Payload), 40)], p.QoS, p.PacketID, p.Dup, p.Retain)
		case *packets.Ack:
			s += fmt.Sprintf("%s{%d %s}", p.Type, p.PacketID, p.Code)
		case *packets.Disconnect:
			s += fmt.Sprintf("DISCONNECT{%s}", p.Code)
		default:
			s += fmt.Sprintf("%T%+v", p, p)
		}
	}
	return s
}

// versions runs a test for MQTT 3.1.1 and 5.0.
func versions(t *testing.T, test func(t *testing.T, v packets.Version)) {
	t.Helper()
	for _, v := range []packets.Version{packets.V311, packets.V5} {
		t.Run("v"+v.String(), func(t *testing.T) {
			t.Parallel()
			test(t, v)
		})
	}
}

// everyVersion is versions with MQTT 3.1 as well, whose CONNACK does not say
// whether there was a session.
func everyVersion(t *testing.T, test func(t *testing.T, v packets.Version)) {
	t.Helper()
	t.Run("v3.1", func(t *testing.T) {
		t.Parallel()
		test(t, packets.V31)
	})
	versions(t, test)
}

// must fails the test unless a code is as wanted.
func must(t *testing.T, what string, got, want packets.Code) {
	t.Helper()
	if got != want {
		t.Fatalf("%s: %s, want %s", what, got, want)
	}
}

func isGone(err error) bool { return errors.Is(err, errGone) }
