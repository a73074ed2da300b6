package e2e

import (
	"context"
	"fmt"
	"net"
	"sync"
	"testing"

	"github.com/eclipse/paho.golang/paho"
)

func paho5Kits() []kit {
	return []kit{{name: "paho.golang-v5-tcp", v5: true, dial: dialPaho5, missing: present}}
}

// present is the answer of kits that go.mod brings.
func present() string { return "" }

// paho5 is a connection of paho.golang.
type paho5 struct {
	client *paho.Client
	conn   net.Conn
	in     chan message
	ended  chan struct{}
	once   sync.Once

	mu   sync.Mutex
	code byte // of the server's DISCONNECT
}

// queueSize holds everything a scenario sends, so that no library blocks.
const queueSize = 1000

func dialPaho5(t *testing.T, b *broker, o dialOptions) (client, bool) {
	t.Helper()
	conn, err := net.DialTimeout("tcp", b.tcp, patience)
	if err != nil {
		t.Fatal(err)
	}
	c := &paho5{conn: conn, in: make(chan message, queueSize), ended: make(chan struct{})}
	c.client = paho.NewClient(paho.ClientConfig{
		Conn:              conn,
		PacketTimeout:     patience,
		OnPublishReceived: []func(paho.PublishReceived) (bool, error){c.received},
		OnServerDisconnect: func(d *paho.Disconnect) {
			c.mu.Lock()
			c.code = d.ReasonCode
			c.mu.Unlock()
			c.end()
		},
		OnClientError: func(error) { c.end() },
	})
	connect := &paho.Connect{ClientID: o.id, KeepAlive: 60, CleanStart: !o.durable}
	if o.durable {
		expiry := uint32(3600)
		connect.Properties = &paho.ConnectProperties{SessionExpiryInterval: &expiry}
	}
	if w := o.will; w != nil {
		connect.WillMessage = &paho.WillMessage{Topic: w.Topic, Payload: w.Payload, QoS: w.QoS, Retain: w.Retain}
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	ack, err := c.client.Connect(ctx, connect)
	if err != nil {
		t.Fatalf("connect: %v", err)
	}
	return c, ack.SessionPresent
}

func (c *paho5) end() { c.once.Do(func() { close(c.ended) }) }

func (c *paho5) received(p paho.PublishReceived) (bool, error) {
	m := message{Topic: p.Packet.Topic, Payload: p.Packet.Payload, QoS: p.Packet.QoS, Retain: p.Packet.Retain}
	if props := p.Packet.Properties; props != nil {
		m.ResponseTopic, m.Correlation = props.ResponseTopic, props.CorrelationData
		for _, u := range props.User {
			m.User = append(m.User, property{u.Key, u.Value})
		}
	}
	c.in <- m
	return true, nil
}

func (c *paho5) subscribe(filter string, qos byte) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	ack, err := c.client.Subscribe(ctx, &paho.Subscribe{Subscriptions: []paho.SubscribeOptions{{Topic: filter, QoS: qos}}})
	if err != nil {
		return err
	}
	if ack.Reasons[0] != qos {
		return fmt.Errorf("granted 0x%02x, want %d", ack.Reasons[0], qos)
	}
	return nil
}

func (c *paho5) publish(m message) error {
	p := &paho.Publish{Topic: m.Topic, Payload: m.Payload, QoS: m.QoS, Retain: m.Retain, Properties: &paho.PublishProperties{
		ResponseTopic: m.ResponseTopic, CorrelationData: m.Correlation,
	}}
	for _, u := range m.User {
		p.Properties.User.Add(u.Key, u.Value)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	ack, err := c.client.Publish(ctx, p)
	if err == nil && ack != nil && ack.ReasonCode >= 0x80 {
		err = fmt.Errorf("refused with 0x%02x", ack.ReasonCode)
	}
	return err
}

func (c *paho5) messages() <-chan message { return c.in }
func (c *paho5) gone() <-chan struct{}    { return c.ended }

func (c *paho5) close() {
	_ = c.client.Disconnect(&paho.Disconnect{})
	<-c.client.Done()
	c.end()
}

func (c *paho5) cut() { _ = c.conn.Close() }

// disconnectCode is the reason code of the server's DISCONNECT, 0 if none came.
func (c *paho5) disconnectCode() byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.code
}
