package bench

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wind-c/comqtt/v3/broker/packets"
)

const (
	// replyTimeout is how long a broker may take to answer a CONNECT or a
	// SUBSCRIBE.
	replyTimeout = 30 * time.Second
	// closeTimeout is how long it may take to close after a DISCONNECT.
	closeTimeout = 2 * time.Second
	// dialers connect at the same time when many connections are made.
	dialers = 32
	// loopbackSources are the source addresses used in turn on loopback, so
	// that connections made fast do not run out of ports.
	loopbackSources = 16
)

// login is the CONNECT of a client.
type login struct {
	id     string
	resume bool   // continue the session of this id
	expiry uint32 // seconds the session outlives the connection; 0: it does not
}

const durableExpiry = 24 * 60 * 60

// conn is a connection after its CONNACK. The methods block; a receiver takes
// the connection over for everything that follows.
type conn struct {
	nc      net.Conn
	version packets.Version
	id      string
	buf     []byte // read and not yet parsed
	scratch []byte

	present        bool // the broker had a session
	receiveMaximum int  // QoS 1 and 2 publishes the broker takes at a time
}

// dialer makes the connections of a run.
type dialer struct {
	network, address   string
	loopback           bool
	tls                bool
	version            packets.Version
	username, password string
	turn               atomic.Uint32
}

func newDialer(o *Options) *dialer {
	d := &dialer{network: "tcp", address: o.Target, version: o.Version, username: o.Username, password: o.Password}
	if path, ok := strings.CutPrefix(o.Target, "unix:"); ok {
		d.network, d.address = "unix", path
		return d
	}
	if address, ok := strings.CutPrefix(o.Target, "tls:"); ok {
		d.address, d.tls = address, true
	}
	host, _, err := net.SplitHostPort(d.address)
	ip := net.ParseIP(host)
	d.loopback = err == nil && runtime.GOOS == "linux" && ip.Equal(net.IPv4(127, 0, 0, 1))
	return d
}

// dial connects without a word of MQTT. The certificate is not checked: the
// broker is on trial for its speed.
func (d *dialer) dial(ctx context.Context) (net.Conn, error) {
	nc, err := d.dialPlain(ctx)
	if err != nil || !d.tls {
		return nc, err
	}
	secure := tls.Client(nc, &tls.Config{InsecureSkipVerify: true})
	if err := secure.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(err, nc.Close())
	}
	return secure, nil
}

func (d *dialer) dialPlain(ctx context.Context) (net.Conn, error) {
	nd := net.Dialer{KeepAlive: -1}
	if d.loopback {
		nd.LocalAddr = &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1+byte(d.turn.Add(1)%loopbackSources))}
		// Answered at once either way: a context would cost a goroutine a dial.
		return nd.Dial(d.network, d.address)
	}
	nd.Timeout = replyTimeout
	return nd.DialContext(ctx, d.network, d.address)
}

// connect connects and logs in.
func (d *dialer) connect(ctx context.Context, l login) (*conn, error) {
	nc, err := d.dial(ctx)
	if err != nil {
		return nil, fmt.Errorf("bench: connect: %w", err)
	}
	c := &conn{nc: nc, version: d.version, id: l.id}
	if err := c.login(d, l); err != nil {
		return nil, errors.Join(fmt.Errorf("bench: connect %s: %w", l.id, err), nc.Close())
	}
	return c, nil
}

func (c *conn) login(d *dialer, l login) error {
	pk := packets.Connect{
		Version: c.version, CleanStart: !l.resume, ClientID: []byte(l.id),
		HasUsername: d.username != "", Username: []byte(d.username),
		HasPassword: d.password != "", Password: []byte(d.password),
	}
	if c.version >= packets.V5 {
		pk.Props.HasSessionExpiry, pk.Props.SessionExpiry = l.expiry > 0, l.expiry
	} else if l.expiry > 0 {
		pk.CleanStart = false // Clean Session 0 is what makes it last
	}
	f, err := c.call(&pk, packets.TypeConnack)
	if err != nil {
		return err
	}
	var ack packets.Connack
	if err := ack.Decode(c.version, f.Flags(), f.Body); err != nil {
		return err
	}
	if ack.Code.IsError() {
		return fmt.Errorf("refused: %s", ack.Code)
	}
	c.present = ack.SessionPresent
	c.receiveMaximum = 65535
	if ack.Props.HasReceiveMaximum {
		c.receiveMaximum = int(ack.Props.ReceiveMaximum)
	}
	c.consume()
	return nil
}

// call sends a packet and returns the answer, which has to be of type want.
// The frame is valid until consume.
func (c *conn) call(pk packets.Packet, want packets.Type) (packets.Frame, error) {
	c.scratch = pk.AppendTo(c.scratch[:0], c.version)
	if err := c.nc.SetDeadline(time.Now().Add(replyTimeout)); err != nil {
		return packets.Frame{}, err
	}
	if _, err := c.nc.Write(c.scratch); err != nil {
		return packets.Frame{}, err
	}
	f, err := c.frame()
	switch {
	case err != nil:
		return f, err
	case f.Type() == packets.TypeDisconnect:
		return f, disconnected(c.version, f)
	case f.Type() != want:
		return f, fmt.Errorf("%s instead of %s", f.Type(), want)
	}
	return f, c.nc.SetDeadline(time.Time{})
}

// frame reads until the buffer begins with a whole packet.
func (c *conn) frame() (packets.Frame, error) {
	for {
		f, n, _, err := packets.Next(c.buf, 0)
		if err != nil || n > 0 {
			return f, err
		}
		if cap(c.buf)-len(c.buf) == 0 {
			c.buf = append(make([]byte, 0, 2*cap(c.buf)+512), c.buf...)
		}
		n, err = c.nc.Read(c.buf[len(c.buf):cap(c.buf)])
		c.buf = c.buf[:len(c.buf)+n]
		if err != nil {
			return packets.Frame{}, err
		}
	}
}

// consume drops the first packet of the buffer.
func (c *conn) consume() {
	_, n, _, _ := packets.Next(c.buf, 0) // it was parsed before
	if c.buf = c.buf[n:]; len(c.buf) == 0 {
		c.buf = nil // idle connections are counted by the ten thousand
	}
}

// disconnected is a broker's DISCONNECT as an error.
func disconnected(v packets.Version, f packets.Frame) error {
	var d packets.Disconnect
	if err := d.Decode(v, f.Flags(), f.Body); err != nil {
		return err
	}
	return fmt.Errorf("broker disconnects: %s %s", d.Code, d.Props.ReasonString)
}

// subscription is a SUBSCRIBE for filters at a QoS.
func subscription(qos byte, filters ...string) *packets.Subscribe {
	pk := &packets.Subscribe{PacketID: 1}
	for _, f := range filters {
		pk.Filters = append(pk.Filters, packets.Subscription{Filter: []byte(f), Options: qos})
	}
	return pk
}

// subscribe subscribes to filters at a QoS. No message may arrive before the
// SUBACK: subscribe first, then publish.
func (c *conn) subscribe(qos byte, filters ...string) error {
	f, err := c.call(subscription(qos, filters...), packets.TypeSuback)
	if err == nil {
		err = c.granted(f, qos, len(filters))
		c.consume()
	}
	if err != nil {
		return fmt.Errorf("bench: %s subscribes to %s: %w", c.id, filters[0], err)
	}
	return nil
}

// granted checks a SUBACK: n filters at a QoS.
func (c *conn) granted(f packets.Frame, qos byte, n int) error {
	var ack packets.Suback
	if err := ack.Decode(c.version, f.Flags(), f.Body); err != nil {
		return err
	}
	if len(ack.Codes) != n {
		return fmt.Errorf("%d codes for %d filters", len(ack.Codes), n)
	}
	for _, code := range ack.Codes {
		if code != packets.Code(qos) {
			return fmt.Errorf("%s instead of QoS %d", code, qos)
		}
	}
	return nil
}

// send writes a packet.
func (c *conn) send(pk packets.Packet) error {
	c.scratch = pk.AppendTo(c.scratch[:0], c.version)
	if _, err := c.nc.Write(c.scratch); err != nil {
		return fmt.Errorf("bench: %s: %w", c.id, err)
	}
	return nil
}

// disconnect says goodbye and waits for the broker to close, so that the port
// is free again at once. A broker that does not is no fault of the run.
func (c *conn) disconnect() {
	pk := packets.Disconnect{}
	_ = c.nc.SetDeadline(time.Now().Add(closeTimeout))
	if _, err := c.nc.Write(pk.AppendTo(nil, c.version)); err == nil {
		var rest [512]byte
		for err == nil {
			_, err = c.nc.Read(rest[:])
		}
	}
	_ = c.nc.Close()
}

// parallel calls fn for 0 to n-1, up to width at a time, until one fails, and
// returns the first error.
func parallel(ctx context.Context, n, width int, fn func(i int) error) error {
	var (
		next atomic.Int64
		wg   sync.WaitGroup
		once sync.Once
		err  error
	)
	for range min(n, width) {
		wg.Go(func() {
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				if e := fn(i); e != nil {
					once.Do(func() { err = e })
					next.Store(int64(n)) // the others need not go on
				}
			}
		})
	}
	wg.Wait()
	if err == nil {
		err = ctx.Err()
	}
	return err
}
