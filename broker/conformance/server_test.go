package conformance

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/wind-c/comqtt/v3/broker"
	"github.com/wind-c/comqtt/v3/broker/packets"
)

// What the CONNACK advertises: everything is supported, and limits are told.
// Packages packets and the client of these tests check the rest of it.
//
// Proves 5.0 [MQTT-3.2.2-1] [MQTT-3.2.2-8] [MQTT-3.2.2-9] [MQTT-3.2.2-10] [MQTT-3.2.2-12] [MQTT-3.2.2-13] [MQTT-3.2.0-2] [MQTT-3.1.2-28]; 3.1.1 [§3.2.2.1].
func TestConnack_MQTT_3_2_2_9_Capabilities(t *testing.T) {
	t.Parallel()
	in := start(t, func(o *broker.Options) {
		o.Limits.MaxSessionExpiry, o.Limits.TopicAliasMaximum, o.Limits.ReceiveMaximum, o.Limits.MaxPacketSize = 100, 7, 11, 100_000
	})
	for _, asked := range []bool{false, true} {
		c := in.connect(t, packets.V5, name(t), resume(1000), will("w", 2, true, "x"), func(c *packets.Connect) {
			c.Props.HasRequestResponseInfo, c.Props.RequestResponseInfo = true, asked
		})
		p := c.connack.Props
		switch {
		case p.HasMaximumQoS, p.HasRetainAvailable && !p.RetainAvailable, p.HasWildcardAvailable && !p.WildcardAvailable,
			p.HasSubscriptionIDAvailable && !p.SubscriptionIDAvailable, p.HasSharedAvailable && !p.SharedAvailable:
			t.Errorf("something is not supported: %+v", p)
		case !p.HasReceiveMaximum || p.ReceiveMaximum != 11, !p.HasTopicAliasMaximum || p.TopicAliasMaximum != 7,
			!p.HasMaximumPacketSize || p.MaximumPacketSize != 100_000:
			t.Errorf("limits: %+v", p)
		case !p.HasSessionExpiry || p.SessionExpiry != 100: // (section 3.2.2.3.2)
			t.Errorf("session expiry: %v %d", p.HasSessionExpiry, p.SessionExpiry)
		case p.HasAssignedClientID, p.HasServerKeepAlive, p.HasServerReference, p.HasReasonString:
			t.Errorf("uncalled for: %+v", p)
		}
		for qos := range byte(3) {
			c.mustSubscribe("a/#", qos|retainNever)
		}
		c.publish(retained("b", 2, "x"))
		c.bye(0)
	}
	// A session expiry that is granted is not repeated.
	if c := in.connect(t, packets.V5, name(t), resume(50)); c.connack.Props.HasSessionExpiry {
		t.Error("session expiry in the CONNACK though unchanged")
	}
}

// Proves 5.0 [MQTT-3.12.4-1]; 3.1.1 [MQTT-3.12.4-1].
func TestPing_MQTT_3_12_4_1(t *testing.T) {
	t.Parallel()
	for _, v := range []packets.Version{packets.V31, packets.V311, packets.V5} {
		c := shared(t).connect(t, v, name(t))
		for range 20 {
			c.raw([]byte(packets.Pingreq)...)
			c.raw([]byte(packets.Pingreq + packets.Pingreq)...)
			for range 3 {
				want[*packets.Ping](c)
			}
		}
		c.quiet()
	}
}

// After a DISCONNECT nothing is processed, and the server closes if the client
// does not.
//
// Proves 5.0 [§3.14.4]; 3.1.1 [§3.14.4].
func TestDisconnect_NothingAfter(t *testing.T) {
	t.Parallel()
	versions(t, func(t *testing.T, v packets.Version) {
		p, s, topic := pair(t, v, 2)
		b := (&packets.Disconnect{}).AppendTo(nil, v)
		b = message(topic, 0, "after").AppendTo(b, v)
		b = retained(topic, 0, "after").AppendTo(b, v)
		b = append(b, packets.Pingreq...)
		p.write(b)
		p.closed()
		s.settled()
	})
}

// Proves 5.0 [MQTT-3.14.2-1] [§3.14.2.1].
func TestDisconnect_MQTT_3_14_2_1_Codes(t *testing.T) {
	t.Parallel()
	fromClient := map[packets.Code]bool{0: true, 4: true, 0x80: true, 0x81: true, 0x82: true, 0x83: true, 0x90: true, 0x93: true, 0x94: true, 0x95: true, 0x96: true, 0x97: true, 0x98: true, 0x99: true}
	for code := range 256 {
		c := shared(t).connect(t, packets.V5, name(t))
		c.raw(0xe0, 1, byte(code))
		if fromClient[packets.Code(code)] {
			c.closed()
		} else {
			c.rejected(packets.CodeProtocolError, packets.CodeMalformedPacket)
		}
	}
}

// Reason codes that the other acknowledgements do not have.
//
// Proves 5.0 [MQTT-3.4.2-1] [MQTT-3.5.2-1] [MQTT-3.6.2-1] [MQTT-3.7.2-1].
func TestMalformed_MQTT_3_4_2_1_AckCodes(t *testing.T) {
	t.Parallel()
	pub := []packets.Code{0, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99}
	rel := []packets.Code{0, 0x92}
	for header, valid := range map[byte][]packets.Code{0x40: pub, 0x50: pub, 0x62: rel, 0x70: rel} {
		for code := range 256 {
			if code > 0x20 && code < 0x80 && code%16 != 0 || code > 0xa2 && code%16 != 0 {
				continue
			}
			c := shared(t).connect(t, packets.V5, name(t))
			c.raw(header, 3, 0, 1, byte(code))
			if !oneOf(packets.Code(code), valid) {
				c.rejected(packets.CodeProtocolError, packets.CodeMalformedPacket)
				continue
			}
			c.alive()
		}
	}
}

// Authentication methods are not supported, and without one there is no AUTH.
//
// Proves 5.0 [MQTT-4.12.0-1] [MQTT-4.12.0-6] [MQTT-3.15.1-1] [§4.12] [MQTT-4.12.0-4].
func TestAuth_MQTT_4_12_0_1(t *testing.T) {
	t.Parallel()
	c := shared(t).dial(t)
	c.hello(packets.V5, name(t), func(c *packets.Connect) {
		c.Props.HasAuthMethod, c.Props.AuthMethod = true, []byte("SCRAM-SHA-256")
		c.Props.HasAuthData, c.Props.AuthData = true, []byte("n,,n=user")
	})
	must(t, "CONNACK", c.connack.Code, packets.CodeBadAuthenticationMethod)
	c.closed()
	auth := &packets.Auth{Code: packets.CodeReauthenticate}
	auth.Props.HasMethod, auth.Props.Method = true, []byte("SCRAM-SHA-256")
	for _, p := range []*packets.Auth{{}, auth, {Code: packets.CodeContinueAuthentication, Props: auth.Props}} {
		c = shared(t).connect(t, packets.V5, name(t))
		c.send(p)
		c.rejected(packets.CodeProtocolError)
	}
	for flags := byte(1); flags < 16; flags++ {
		c = shared(t).connect(t, packets.V5, name(t))
		b := auth.AppendTo(nil, packets.V5)
		b[0] |= flags
		c.write(b)
		c.rejected(packets.CodeMalformedPacket, packets.CodeProtocolError)
	}
}

// gate lets in who has the password "secret", and to topics that begin with
// the user's name.
type gate struct{}

func (gate) Authenticate(_ broker.ClientInfo, password []byte) bool {
	return string(password) == "secret"
}

func (gate) Authorize(c broker.ClientInfo, topic string, _ bool) bool {
	return len(topic) > len(c.Username) && topic[:len(c.Username)] == c.Username || topic == "$share/g/"+c.Username+"/x"
}

func user(name, password string) with {
	return func(c *packets.Connect) {
		c.HasUsername, c.HasPassword, c.Username, c.Password = true, true, []byte(name), []byte(password)
	}
}

// Proves 5.0 [MQTT-3.1.4-2] [MQTT-3.2.2-6] [MQTT-3.2.2-7] [MQTT-3.14.0-1]; 3.1.1 [MQTT-3.2.2-4] [MQTT-3.2.2-5] [MQTT-3.2.2-6].
func TestConnect_MQTT_3_1_4_2_NotLetIn(t *testing.T) {
	t.Parallel()
	in := start(t, func(o *broker.Options) { o.Authenticator = gate{} })
	nobody := start(t, func(o *broker.Options) { o.AllowAnonymous = false })
	for _, v := range []packets.Version{packets.V31, packets.V311, packets.V5} {
		id := name(t)
		in.connect(t, v, id, user("bob", "secret"), durable(v)).bye(0) // a session exists
		c := in.dial(t)
		p := &packets.Connect{ClientID: []byte(id)}
		durable(v)(p)
		user("bob", "wrong")(p)
		c.v = v
		c.send(p)
		refused(c, packets.CodeBadUserNameOrPassword)
		c = in.dial(t) // not to the will's topic
		p = &packets.Connect{CleanStart: true, ClientID: []byte(id + "x")}
		user("bob", "secret")(p)
		will("eve/w", 0, false, "x")(p)
		c.v = v
		c.send(p)
		refused(c, packets.CodeNotAuthorized)
		c = nobody.dial(t)
		c.v = v
		c.send(&packets.Connect{CleanStart: true, ClientID: []byte(id)})
		refused(c, packets.CodeNotAuthorized)
	}
}

// A publish or a subscription that is not allowed.
//
// Proves 5.0 [§3.4.2.1] [§3.5.2.1] [MQTT-4.3.3-9] [MQTT-3.8.4-7]; 3.1.1 [§3.3.5] [MQTT-3.3.5-2] [MQTT-3.8.4-5].
func TestPublish_NotAuthorized(t *testing.T) {
	t.Parallel()
	in := start(t, func(o *broker.Options) { o.Authenticator = gate{}; o.Limits.ReceiveMaximum = 2 })
	eve := in.connect(t, packets.V5, "eve", user("eve", "secret"))
	eve.mustSubscribe("eve/#", 2)
	c := in.connect(t, packets.V5, "bob", user("bob", "secret"))
	for i := range 6 {
		for qos := byte(1); qos <= 2; qos++ {
			m := message("eve/x", qos, "x")
			m.Retain = i%2 == 0
			must(t, "publish", c.publish(m), packets.CodeNotAuthorized)
		}
		c.publish(message("eve/x", 0, "x"))
	}
	// A PUBREC with a failure ends it: the identifier is for a new message.
	for _, to := range []struct {
		topic string
		code  packets.Code
	}{{"eve/x", packets.CodeNotAuthorized}, {"bob/y", packets.CodeNoMatchingSubscribers}} {
		m := message(to.topic, 2, "x")
		m.PacketID = 4000
		c.send(m)
		must(t, "PUBREC", c.ack(packets.TypePubrec, 4000).Code, to.code)
	}
	c.send(&packets.Ack{Type: packets.TypePubrel, PacketID: 4000})
	must(t, "PUBCOMP", c.ack(packets.TypePubcomp, 4000).Code, packets.CodeSuccess)
	must(t, "subscribe", c.subscribe("eve/#", 1), packets.CodeNotAuthorized)
	must(t, "subscribe", c.subscribe("$share/g/eve/x", 1), packets.CodeNotAuthorized)
	must(t, "subscribe", c.subscribe("bob/#", 1), 1)
	c.publish(message("bob/x", 2, "mine"))
	c.expect("bob/x", "mine")
	c.quiet()
	c.fence()
	eve.settled()
	old := in.connect(t, packets.V311, "bob3", user("bob", "secret"))
	must(t, "subscribe", old.subscribe("eve/#", 1), packets.CodeUnspecifiedError)
	m := message("eve/x", 1, "x")
	m.PacketID = 1
	old.send(m) // a positive acknowledgement or the end of the connection
	if p, err := old.read(); err == nil {
		if a, ok := p.(*packets.Ack); !ok || a.Type != packets.TypePuback {
			t.Fatalf("got %s", describe(p))
		}
	}
	eve.settled()
}

// Problem information that is not wanted stays away; the client of these tests
// checks every acknowledgement for it.
//
// Proves 5.0 [MQTT-3.1.2-29] [MQTT-3.4.2-2] [MQTT-3.4.2-3] [MQTT-3.5.2-2] [MQTT-3.5.2-3] [MQTT-3.6.2-2] [MQTT-3.6.2-3] [MQTT-3.7.2-2] [MQTT-3.7.2-3] [MQTT-3.9.2-1] [MQTT-3.9.2-2] [MQTT-3.11.2-1] [MQTT-3.11.2-2] [MQTT-3.2.2-20] [MQTT-3.14.2-3] [MQTT-3.14.2-4].
func TestConnect_MQTT_3_1_2_29_ProblemInformation(t *testing.T) {
	t.Parallel()
	in := start(t, func(o *broker.Options) { o.Authenticator = gate{} })
	for _, wanted := range []bool{false, true} {
		// Twenty bytes: whatever is added to an acknowledgement shows.
		c := in.connect(t, packets.V5, name(t), user("bob", "secret"), maximumPacketSize(20), func(c *packets.Connect) {
			c.Props.HasRequestProblemInfo, c.Props.RequestProblemInfo = true, wanted
		})
		for qos := byte(1); qos <= 2; qos++ {
			c.publish(message("eve/x", qos, "x"))
			c.publish(message("bob/x", qos, "x"))
		}
		c.subscribe("a#", 0)
		c.subscribe("eve/x", 0)
		c.unsubscribe("a#", "eve/x")
		c.send(&packets.Ack{Type: packets.TypePubrel, PacketID: 900})
		c.ack(packets.TypePubcomp, 900)
		c.send(&packets.Ack{Type: packets.TypePubrec, PacketID: 901})
		c.ack(packets.TypePubrel, 901)
		c.raw(0x36, 0)
		c.rejected(packets.CodeMalformedPacket)
	}
}

// Proves 5.0 [MQTT-3.14.4-1] [MQTT-3.14.4-2] [MQTT-3.14.2-2] [MQTT-4.13.2-1] [§3.14.2.1].
func TestDisconnect_MQTT_3_14_4_2_FromServer(t *testing.T) {
	t.Parallel()
	in := start(t, nil)
	var clients []*client
	for _, v := range []packets.Version{packets.V31, packets.V311, packets.V5} {
		clients = append(clients, in.connect(t, v, name(t)), in.connect(t, v, name(t), durable(v)))
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	closed := make(chan error, 1)
	go func() { closed <- in.srv.Close(ctx) }()
	for _, c := range clients {
		c.rejected(packets.CodeServerShuttingDown)
	}
	if err := <-closed; err != nil {
		t.Fatal(err)
	}
	next, err := launch(in.opts) // for the cleanup, which stops a broker
	if err != nil {
		t.Fatal(err)
	}
	*in = *next
}

// The last word reaches a client that is still sending.
//
// Proves 5.0 [MQTT-4.13.1-1] [§4.13.1].
func TestDisconnect_ReachesBusyClient(t *testing.T) {
	t.Parallel()
	for range 20 {
		c := shared(t).connect(t, packets.V5, name(t))
		b := packet(0x36, []byte{0}) // QoS 3, and a lot after it
		for range 2000 {
			b = message("a/b/c", 0, "a message that nobody will read any more, for the connection is at its end").AppendTo(b, packets.V5)
		}
		if err := c.nc.SetWriteDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		_, _ = c.nc.Write(b) // may fail half way: the broker is closing
		if d := want[*packets.Disconnect](c); d.Code != packets.CodeMalformedPacket {
			t.Fatalf("got %s", describe(d))
		}
		c.gone()
	}
}

// lines is a log that tests wait for.
type lines struct{ ch chan string }

func (l lines) Write(p []byte) (int, error) {
	l.ch <- string(p)
	return len(p), nil
}

// Whoever breaks a rule is found in the debug log, with the rule.
//
// Proves 5.0 [§4.13.1].
func TestServer_LogsTheBrokenRule(t *testing.T) {
	t.Parallel()
	log := lines{make(chan string, 1000)}
	in := start(t, func(o *broker.Options) {
		o.Logger = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
		o.Limits.MaxPacketSize, o.Limits.ReceiveMaximum = 10_000, 1
	})
	one := []byte{0, 1}
	for rule, b := range map[string][]byte{
		"MQTT-3.3.1-4":  packet(0x36, append(str("a"), 0, 1, 0)),
		"MQTT-3.3.1-2":  packet(0x38, append(str("a"), 0)),
		"MQTT-3.1.0-2":  connectBytes("MQTT", 5, 2, []byte{0}, str("x")),
		"MQTT-3.3.2-9":  aliased("a", 9999, 0, "x").AppendTo(nil, packets.V5),
		"MQTT-3.3.2-2":  message("a/#", 0, "x").AppendTo(nil, packets.V5),
		"MQTT-3.8.3-2":  packet(0x82, []byte{0, 1, 0}),
		"MQTT-3.8.1-1":  packet(0x80, append(append(one, 0), append(str("a"), 0)...)),
		"MQTT-3.8.3-4":  packet(0x82, append([]byte{0, 1, 0}, append(str("$share/g/a"), noLocal)...)),
		"MQTT-1.5.4-2":  message("a\x00", 0, "x").AppendTo(nil, packets.V5),
		"MQTT-1.5.4-1":  message("a\xff", 0, "x").AppendTo(nil, packets.V5),
		"MQTT-1.5.5-1":  {0xc0, 0x80, 0},
		"MQTT-3.2.2-15": {0x30, 0xff, 0xff, 0x7f},
		"MQTT-3.3.4-7":  append(packet(0x34, append(str("a"), 0, 1, 0)), packet(0x34, append(str("a"), 0, 2, 0))...),
		"MQTT-2.1.3-1":  {0x41, 2, 0, 1},
		"MQTT-3.14.1-1": {0xe1, 0},
	} {
		id := name(t)
		c := in.connect(t, packets.V5, id)
		c.write(b)
		c.gone()
		for found := false; !found; {
			select {
			case line := <-log.ch:
				found = strings.Contains(line, rule) && strings.Contains(line, "client="+id)
			case <-time.After(patience):
				t.Fatalf("%s is not in the log", rule)
			}
		}
	}
}

// A client that does not read does not hold up others.
//
// Proves 5.0 [MQTT-4.9.0-3]; 3.1.1 [§4.6].
func TestServer_SlowReader(t *testing.T) {
	t.Parallel()
	in := start(t, nil)
	topic := name(t)
	slow, quick := in.connect(t, packets.V5, name(t)), in.connect(t, packets.V5, name(t))
	slow.mustSubscribe(topic, 2)
	quick.mustSubscribe(topic, 2)
	p := in.connect(t, packets.V5, name(t))
	payload := string(make([]byte, 100_000))
	for range 100 {
		p.publish(message(topic, 1, payload))
		quick.expect(topic, payload)
	}
	for range 100 { // and it loses nothing of QoS 1 for it
		slow.expect(topic, payload)
	}
	slow.quiet()
}
