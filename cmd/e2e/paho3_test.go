package e2e

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"sync"
	"testing"

	mqtt "github.com/eclipse/paho.mqtt.golang"
)

func paho3Kits() []kit {
	return []kit{
		{name: "paho.mqtt.golang-v3.1.1-tcp", dial: dialPaho3, missing: present},
	}
}

// paho3 is a connection of paho.mqtt.golang.
type paho3 struct {
	client mqtt.Client
	in     chan message
	ended  chan struct{}
	once   sync.Once

	mu   sync.Mutex
	conn net.Conn
}

func dialPaho3(t *testing.T, b *broker, o dialOptions) (client, bool) {
	t.Helper()
	c := &paho3{in: make(chan message, queueSize), ended: make(chan struct{})}
	opts := mqtt.NewClientOptions().AddBroker("tcp://" + b.tcp).SetClientID(o.id).SetCleanSession(!o.durable).
		SetProtocolVersion(4).SetAutoReconnect(false).SetConnectTimeout(patience).SetWriteTimeout(patience).
		SetDefaultPublishHandler(c.received).SetConnectionLostHandler(func(mqtt.Client, error) { c.end() }).
		SetCustomOpenConnectionFn(func(*url.URL, mqtt.ClientOptions) (net.Conn, error) {
			conn, err := net.DialTimeout("tcp", b.tcp, patience)
			c.mu.Lock()
			defer c.mu.Unlock()
			c.conn = conn
			return conn, err
		})
	if w := o.will; w != nil {
		opts.SetBinaryWill(w.Topic, w.Payload, w.QoS, w.Retain)
	}
	c.client = mqtt.NewClient(opts)
	token := c.client.Connect()
	if err := done(token); err != nil {
		t.Fatalf("connect: %v", err)
	}
	return c, token.(*mqtt.ConnectToken).SessionPresent()
}

func done(token mqtt.Token) error {
	if !token.WaitTimeout(patience) {
		return errors.New("no answer in time")
	}
	return token.Error()
}

func (c *paho3) end() { c.once.Do(func() { close(c.ended) }) }

func (c *paho3) received(_ mqtt.Client, m mqtt.Message) {
	c.in <- message{Topic: m.Topic(), Payload: m.Payload(), QoS: m.Qos(), Retain: m.Retained()}
}

func (c *paho3) subscribe(filter string, qos byte) error {
	token := c.client.Subscribe(filter, qos, nil)
	if err := done(token); err != nil {
		return err
	}
	for _, got := range token.(*mqtt.SubscribeToken).Result() { // its key is not always the filter
		if got != qos {
			return fmt.Errorf("granted 0x%02x, want %d", got, qos)
		}
		return nil
	}
	return errors.New("SUBACK without a code")
}

func (c *paho3) publish(m message) error {
	return done(c.client.Publish(m.Topic, m.QoS, m.Retain, m.Payload))
}

func (c *paho3) messages() <-chan message { return c.in }
func (c *paho3) gone() <-chan struct{}    { return c.ended }

func (c *paho3) close() {
	c.client.Disconnect(250) // milliseconds for what is under way
	c.end()
}

func (c *paho3) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	_ = c.conn.Close()
}
