package broker

import (
	"crypto/rand"
	"encoding/hex"
	"log/slog"
	"syscall"
	"time"

	"github.com/wind-c/comqtt/v3/broker/packets"
	"github.com/wind-c/comqtt/v3/session"
	"github.com/wind-c/comqtt/v3/wal/record"
)

// handshake reads the CONNECT, decides about it, and waits for the state's
// answer (MQTT 5 sections 3.1.4 and 4.13.1).
func (c *conn) handshake() error {
	s := c.srv
	if s.unauthenticated.Add(1) > int64(s.opts.Limits.MaxUnauthenticated) {
		s.unauthenticated.Add(-1)
		s.stats.refused.Add(1)
		return errClosed
	}
	var pk packets.Connect
	rest, err := c.readConnect(&pk)
	s.unauthenticated.Add(-1)
	if err != nil {
		c.turnAway(&pk, err)
		return err
	}
	err = c.accept(&pk)
	if err == nil {
		err = c.checkConnack()
	}
	if err != nil {
		c.turnAway(&pk, err)
		return err
	}
	c.in.connack = make(chan error, 1)
	if !c.propose(&pk) {
		return errClosed
	}
	c.in.flush(c.srv) // the CONNACK, if it is there
	c.in.buf = c.in.buf[:copy(c.in.buf, rest)]
	select {
	case err = <-c.in.connack:
	case <-s.stopped:
		err = errClosed
	}
	if err != nil {
		return err
	}
	s.wheel.add(c)
	return nil
}

// readConnect reads the first packet, which must be a CONNECT [MQTT-3.1.0-1].
// rest is what follows it in the buffer.
func (c *conn) readConnect(pk *packets.Connect) (rest []byte, err error) {
	limits := &c.srv.opts.Limits
	limited := false // the deadline is set
	for first := c.raw != nil; ; first = false {
		if !first && !limited {
			if err := c.readUntil(time.Now().Add(limits.ConnectTimeout)); err != nil {
				return nil, err
			}
			limited = true
		}
		c.in.atOnce = first // mostly the CONNECT is there: no deadline to set and to take back
		err := c.fillBuffer(int(limits.MaxPacketBeforeAuth))
		c.in.atOnce = false
		if first && err == syscall.EAGAIN {
			continue
		}
		if err != nil {
			return nil, err
		}
		f, n, _, err := packets.Next(c.in.buf, int(limits.MaxPacketBeforeAuth))
		if err != nil {
			peekVersion(pk, c.in.buf)
			return nil, err
		}
		if n == 0 && c.in.buf[0]>>4 == byte(packets.TypeConnect) {
			continue
		}
		if packets.Type(c.in.buf[0]>>4) != packets.TypeConnect {
			return nil, violation(packets.CodeProtocolError, "MQTT-3.1.0-1", "the first packet is not a CONNECT")
		}
		if err := pk.Decode(f.Flags(), f.Body); err != nil {
			return nil, err
		}
		if limited {
			if err := c.readUntil(time.Time{}); err != nil {
				return nil, err
			}
		}
		return c.in.buf[n:], nil
	}
}

// peekVersion finds the version in which to refuse a CONNECT that is too large
// to be read, as far as b, its beginning, tells.
func peekVersion(pk *packets.Connect, b []byte) {
	if len(b) == 0 || packets.Type(b[0]>>4) != packets.TypeConnect {
		return
	}
	for i := 1; i < min(len(b), 5); i++ {
		if b[i] < 0x80 {
			_ = pk.Decode(b[0]&0x0f, b[i+1:]) // fails, and leaves the version
			return
		}
	}
}

// accept takes over what the CONNECT says, or says why not.
func (c *conn) accept(pk *packets.Connect) error {
	s := c.srv
	c.version = pk.Version
	c.receiveMax, c.maxPacket, c.aliasMax = 65535, 0, 0
	c.problems, c.keepAlive = true, pk.KeepAlive
	if pk.Props.HasReceiveMaximum {
		c.receiveMax = pk.Props.ReceiveMaximum
	}
	if pk.Props.HasMaximumPacketSize {
		c.maxPacket = pk.Props.MaximumPacketSize
	}
	if pk.Props.HasRequestProblemInfo {
		c.problems = pk.Props.RequestProblemInfo
	}
	c.aliasMax = min(pk.Props.TopicAliasMaximum, s.opts.Limits.TopicAliasMaximum)
	if most := s.opts.Limits.MaxKeepAlive; most != 0 && c.version == packets.V5 && (c.keepAlive == 0 || c.keepAlive > most) {
		c.keepAlive = most
	}
	if pk.Props.HasAuthMethod { // [MQTT-4.12.0-1]
		return refuse(packets.CodeBadAuthenticationMethod, "authentication methods are not supported")
	}
	switch {
	case len(pk.ClientID) > 0:
		c.clientID = string(pk.ClientID)
	case c.version == packets.V31 || c.version == packets.V311 && !pk.CleanStart: // [MQTT-3.1.3-8]
		statement := "3.1.1:MQTT-3.1.3-7"
		if c.version == packets.V31 {
			statement = "3.1:3.1"
		}
		return violation(packets.CodeClientIdentifierNotValid, statement, "an empty client identifier needs Clean Session 1")
	default:
		id, err := newClientID()
		if err != nil {
			return err
		}
		c.clientID, c.assigned = id, true
	}
	c.user = string(pk.Username)
	if a := s.opts.Authenticator; a != nil {
		if !a.Authenticate(c.info(), pk.Password) {
			s.stats.denied.Add(1)
			return refuse(packets.CodeBadUserNameOrPassword, "authentication failed")
		}
	} else if !s.opts.AllowAnonymous {
		return refuse(packets.CodeNotAuthorized, "no authenticator is set and anonymous clients are not allowed")
	}
	return c.acceptSession(pk)
}

func (c *conn) acceptSession(pk *packets.Connect) error {
	c.expiry = pk.Props.SessionExpiry
	if c.version != packets.V5 && !pk.CleanStart { // MQTT 3 sessions end when the client says so
		c.expiry = session.Forever
	}
	if c.expiry > 0 && c.srv.pushback.Load() && (pk.CleanStart || !c.srv.hasSession(c.clientID)) {
		return refuse(packets.CodeQuotaExceeded, "the disk is nearly full: no new durable sessions")
	}
	if !pk.HasWill {
		return nil
	}
	w := &pk.Will
	if c.srv.opts.Authenticator != nil && !c.srv.opts.Authenticator.Authorize(c.info(), string(w.Topic), true) {
		return refuse(packets.CodeNotAuthorized, "not allowed to publish the will")
	}
	if err := c.checkTopic(w.Topic); err != nil {
		return err
	}
	c.will = &record.Will{
		QoS: w.QoS, Retain: w.Retain, Delay: w.Delay, HasExpiry: w.Props.HasExpiry, Expiry: w.Props.Expiry,
		Message: w.AppendMessage(nil),
	}
	return nil
}

// hasSession reports whether a durable session waits for the client.
func (s *Server) hasSession(clientID string) bool {
	s.indexMu.RLock()
	defer s.indexMu.RUnlock()
	return s.machine.SessionOf(clientID) != nil
}

// newClientID makes up a client identifier [MQTT-3.1.3-6].
func newClientID() (string, error) {
	var b [12]byte
	if _, err := rand.Read(b[:]); err != nil {
		return "", err
	}
	return "auto-" + hex.EncodeToString(b[:]), nil
}

// propose sends the CONNECT to the state. A durable session needs a record;
// for the others the apply loop decides whether one is in the way.
func (c *conn) propose(pk *packets.Connect) bool {
	var b batch
	if c.expiry > 0 {
		c.durable = true
		b.addRecord(item{conn: c}, c.connectRecord(pk.CleanStart))
		return c.srv.lane.put(&b, false)
	}
	clean := pk.CleanStart
	if c.srv.claim() {
		c.srv.connectEphemeral(c, clean)
		c.srv.settleClaim(c)
		return true
	}
	b.addCommand(c, func() { c.srv.connectEphemeral(c, clean) })
	return c.srv.lane.put(&b, false)
}

func (c *conn) connectRecord(clean bool) []byte {
	r := record.Connect{
		Epoch: c.epoch, ClientID: []byte(c.clientID), User: []byte(c.user), Version: byte(c.version),
		CleanStart: clean, Expiry: c.expiry, ReceiveMaximum: c.receiveMax, MaxPacket: c.maxPacket,
	}
	if c.will != nil {
		r.HasWill, r.Will = true, *c.will
	}
	return r.AppendTo(nil)
}

// turnAway answers a CONNECT that failed, if there is somebody to answer and a
// code to answer with.
func (c *conn) turnAway(pk *packets.Connect, err error) {
	code, why, ok := codeOf(err)
	if !ok {
		if !isEOF(err) {
			c.log(slog.LevelDebug, "no CONNECT", "error", err)
		}
		return
	}
	c.log(slog.LevelDebug, "connection refused", "code", code.String(), "reason", why)
	v := pk.Version
	if v == 0 {
		if code != packets.CodeUnsupportedProtocolVersion {
			return // not even a CONNECT: close without a word (section 4.13.1)
		}
		v = packets.V311
		if pk.Level > 5 {
			v = packets.V5
		}
	}
	if v != packets.V5 {
		if _, known := code.ConnackV3(); !known {
			return
		}
	}
	ack := packets.Connack{Code: code}
	if v == packets.V5 && c.problems {
		ack.Props.HasReasonString, ack.Props.ReasonString = true, []byte(why)
	}
	most := int(pk.Props.MaximumPacketSize)
	b := ack.AppendTo(nil, v)
	if most > 0 && len(b) > most { // [MQTT-3.2.2-19]
		ack.Props = packets.ConnackProps{}
		if b = ack.AppendTo(b[:0], v); len(b) > most {
			return
		}
	}
	c.mu.Lock()
	if !c.closed {
		c.room()
		c.out.buf = append(c.out.buf, b...)
		c.out.why = true
	}
	c.mu.Unlock()
}

// checkConnack refuses a client that cannot take a packet as large as its
// CONNACK [MQTT-3.1.2-24]: what it says must not be left out.
func (c *conn) checkConnack() error {
	if c.maxPacket == 0 {
		return nil
	}
	var ack packets.Connack
	expiry := c.expiry
	c.advertise(&ack.Props, min(expiry, c.srv.opts.Limits.MaxSessionExpiry))
	c.expiry = expiry
	if len(ack.AppendTo(nil, c.version)) > int(c.maxPacket) {
		return refuse(packets.CodePacketTooLarge, "the CONNACK is larger than the client's maximum packet size [MQTT-3.1.2-24]")
	}
	return nil
}

// checkAnswer refuses a SUBSCRIBE or UNSUBSCRIBE whose answer, with one reason
// code a filter, would be larger than the client takes [MQTT-3.1.2-24].
func (c *conn) checkAnswer(filters int) error {
	if c.maxPacket == 0 {
		return nil
	}
	a := packets.Unsuback{Codes: make([]packets.Code, filters)}
	if len(a.AppendTo(nil, c.version)) > int(c.maxPacket) {
		return refuse(packets.CodePacketTooLarge, "the answer is larger than the client's maximum packet size [MQTT-3.1.2-24]")
	}
	return nil
}

// connected sends the CONNACK and lets the reader go on. The apply loop calls
// it, after the session's state is durable where it has to be.
func (c *conn) connected(present bool, expiry uint32, touched *touch) {
	ack := packets.Connack{SessionPresent: present}
	if c.version == packets.V5 {
		c.advertise(&ack.Props, expiry)
	}
	c.mu.Lock()
	if !c.closed {
		c.room()
		c.out.buf = ack.AppendTo(c.out.buf, c.version)
		touched.add(c)
	}
	c.mu.Unlock()
	c.in.accepted.Store(true)
	c.in.connack <- nil
}

// advertise fills the CONNACK's properties (MQTT 5 section 3.2.2.3).
func (c *conn) advertise(p *packets.ConnackProps, expiry uint32) {
	l := &c.srv.opts.Limits
	p.HasReceiveMaximum, p.ReceiveMaximum = true, l.ReceiveMaximum
	p.HasMaximumPacketSize, p.MaximumPacketSize = true, l.MaxPacketSize
	p.HasTopicAliasMaximum, p.TopicAliasMaximum = true, l.TopicAliasMaximum
	if expiry != c.expiry {
		p.HasSessionExpiry, p.SessionExpiry = true, expiry
		c.expiry = expiry
	}
	if c.assigned {
		p.HasAssignedClientID, p.AssignedClientID = true, []byte(c.clientID)
	}
	if most := l.MaxKeepAlive; most != 0 && c.keepAlive == most {
		p.HasServerKeepAlive, p.ServerKeepAlive = true, most
	}
}
