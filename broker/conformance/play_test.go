package conformance

import (
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/wind-c/comqtt/v3/broker"
	"github.com/wind-c/comqtt/v3/broker/packets"
	"github.com/wind-c/comqtt/v3/session/topic"
	"github.com/wind-c/comqtt/v3/wal"
)

// tester is what clients need of a test: testing.T and rapid.T have it.
type tester interface {
	Helper()
	Cleanup(func())
	Fatalf(format string, args ...any)
}

// play has a few clients do what a string of bytes says, with a real broker
// and with the reference, and compares them after each step.
type play struct {
	t       tester
	in      *instance
	ref     *reference
	script  []byte
	prefix  string // of client identifiers and topics: no play sees another's
	players []*player
	serial  int
	did     []string
}

// player is one client. Its connection and session are nil while it is away.
type player struct {
	*client
	id   string
	v    packets.Version
	sess *refSession
	two  map[uint16]*packets.Publish // QoS 2 publishes not yet released
	pids []uint16                    // their identifiers, in order
}

const (
	playWindow  = 3 // Limits.MaxInflight of the broker
	playSteps   = 80
	playScript  = 250 // bytes
	playerCount = 4
)

var (
	playTopics  = []string{"a", "a/b", "a/b/c", "/", "$x"}
	playFilters = []string{"a", "a/+", "a/#", "#", "+", "a/b", "+/b/#", "/", "$x"}
)

// playBroker is the broker of all plays.
func playBroker(dir string) (*instance, error) {
	return launch(broker.Options{
		DataDir: dir, AllowAnonymous: true, Sync: wal.SyncNever, Backend: "memory",
		Limits: broker.Limits{MaxInflight: playWindow},
	})
}

var plays struct {
	sync.Mutex
	n int
}

func newPlay(t tester, in *instance, script []byte) *play {
	plays.Lock()
	defer plays.Unlock()
	plays.n++
	p := &play{t: t, in: in, script: script, ref: newReference(playWindow), prefix: fmt.Sprintf("play%d", plays.n)}
	for i := range playerCount {
		w := &player{id: fmt.Sprintf("%s-%d", p.prefix, i), v: packets.V5, two: map[uint16]*packets.Publish{}}
		if i == 3 {
			w.v = packets.V311
		}
		p.players = append(p.players, w)
	}
	return p
}

// byte returns the next number of the script, below n.
func (p *play) byte(n int) int {
	if len(p.script) == 0 {
		return 0
	}
	b := int(p.script[0])
	p.script = p.script[1:]
	return b % n
}

func (p *play) note(format string, args ...any) { p.did = append(p.did, fmt.Sprintf(format, args...)) }

func (p *play) fail(w *player, format string, args ...any) {
	p.t.Helper()
	p.t.Fatalf("%s\n%s\nstep by step:\n%s\non the wire of %s:\n%s", w.id, fmt.Sprintf(format, args...), strings.Join(p.did, "\n"), w.id, w.strict.trace())
}

// run plays the script to its end, and then everything to its end.
func (p *play) run() {
	p.t.Helper()
	for range playSteps {
		if len(p.script) == 0 {
			break
		}
		w := p.players[p.byte(playerCount)]
		p.step(w)
		p.compare(w)
	}
	for _, w := range p.players { // every session delivers what it has
		if w.client == nil && p.ref.sessions[w.id] != nil {
			p.connect(w, false, true, 65535, false)
			p.compare(w)
		}
		for w.client != nil && p.answer(w, 0, 0) {
			p.compare(w)
		}
	}
	p.sweep()
}

// sweep leaves nothing behind in the broker.
func (p *play) sweep() {
	for _, w := range p.players {
		if w.client != nil {
			p.leave(w, "cut")
		}
	}
	c := p.in.connect(p.t, packets.V5, p.players[0].id)
	for _, name := range playTopics {
		c.send(retained(p.topic(name), 0, ""))
	}
	c.bye(0)
	for _, w := range p.players[1:] {
		p.in.connect(p.t, packets.V5, w.id).bye(0)
	}
}

// topic puts the play's prefix into a topic or filter, where a leading $ stays
// one.
func (p *play) topic(s string) string {
	if rest, hidden := strings.CutPrefix(s, "$"); hidden {
		return "$" + p.prefix + rest
	}
	return p.prefix + "/" + s
}

func (p *play) step(w *player) {
	p.t.Helper()
	k := p.byte(32)
	if w.client == nil || k < 3 {
		if w.client != nil && w.sess.will != nil {
			p.leave(w, "cut") // when the will of a taken-over connection goes out is not the point here
			p.compare(nil)
		}
		how := p.byte(8)
		clean := how == 0 || how >= 5
		lasting := how < 5
		if w.v == packets.V5 && how == 4 {
			lasting = false // goes on with a session and ends it
		}
		p.connect(w, clean, lasting, []int{1, 2, 65535}[p.byte(3)], p.byte(4) == 0)
		return
	}
	switch {
	case k < 9:
		p.subscribe(w)
	case k < 11:
		filter := p.topic(playFilters[p.byte(len(playFilters))])
		p.note("%s unsubscribes from %s", w.id, filter)
		w.unsubscribe(filter)
		delete(w.sess.subs, filter)
	case k < 20:
		p.publish(w)
	case k < 28:
		p.answer(w, p.byte(4), p.byte(8))
	case k < 29:
		p.again(w)
	default:
		p.leave(w, []string{"bye", "cut", "bye with will"}[k-29])
	}
}

func (p *play) connect(w *player, clean, lasting bool, receiveMax int, will bool) {
	p.t.Helper()
	p.note("%s connects: clean %v, lasting %v, receive maximum %d, will %v", w.id, clean, lasting, receiveMax, will)
	old := w.client
	if old != nil && !w.sess.lasting { // the session ends with its connection
		delete(p.ref.sessions, w.id)
	}
	if w.v == packets.V311 {
		clean, receiveMax = !lasting, 65535
	}
	var m *refMessage
	if will {
		p.serial++
		m = &refMessage{topic: p.topic("a"), payload: fmt.Sprintf("will%d", p.serial), qos: byte(p.serial % 3), retain: p.serial%4 == 0}
	}
	c := p.in.dial(p.t)
	ack := c.hello(w.v, w.id, func(k *packets.Connect) {
		k.CleanStart = clean
		if lasting && w.v == packets.V5 {
			k.Props.HasSessionExpiry, k.Props.SessionExpiry = true, 300
		}
		if receiveMax < 65535 {
			receiveMaximum(uint16(receiveMax))(k)
		}
		if m != nil {
			k.HasWill, k.Will.Topic, k.Will.Payload = true, []byte(m.topic), []byte(m.payload)
			k.Will.QoS, k.Will.Retain = m.qos, m.retain
		}
	})
	if old != nil {
		old.gone()
	}
	c.lastPID = uint16(1000 * len(p.did) % 60000)
	sess, present := p.ref.connect(w.id, w.v, clean, lasting, receiveMax, m)
	w.client, w.sess = c, sess
	if !present {
		w.two, w.pids = map[uint16]*packets.Publish{}, nil
	}
	if ack.SessionPresent != present {
		p.fail(w, "session present %v, want %v", ack.SessionPresent, present)
	}
}

// leave ends a connection. What the client has not read it never gets to know;
// the broker has sent it all the same.
func (p *play) leave(w *player, how string) {
	p.t.Helper()
	p.note("%s leaves: %s", w.id, how)
	switch how {
	case "cut":
		if err := w.nc.(*net.TCPConn).CloseWrite(); err != nil {
			p.t.Fatalf("close: %v", err)
		}
	case "bye":
		w.send(&packets.Disconnect{})
	default:
		code := packets.CodeDisconnectWithWill
		if w.v != packets.V5 {
			code, how = 0, "bye"
		}
		w.send(&packets.Disconnect{Code: code})
	}
	w.gone()
	if err := w.nc.Close(); err != nil {
		p.t.Fatalf("close: %v", err)
	}
	p.ref.leave(w.sess, how == "bye")
	w.client, w.sess = nil, nil
}

func (p *play) subscribe(w *player) {
	p.t.Helper()
	filter := p.topic(playFilters[p.byte(len(playFilters))])
	b := p.byte(256)
	options, id := byte(b%3), uint32(0)
	if w.v == packets.V5 {
		options |= byte(b>>2&1)<<2 | byte(b>>3&1)<<3 | byte(b>>4&3%3)<<4
		if options>>4 == 3 {
			options &^= 0x30
		}
		id = uint32(b >> 6)
	}
	p.note("%s subscribes to %s, options %#x, identifier %d", w.id, filter, options, id)
	if code := w.subscribeID(filter, options, id); byte(code) != options&3 {
		p.fail(w, "SUBACK %s", code)
	}
	p.ref.subscribe(w.sess, filter, topic.Options(options), id)
}

func (p *play) publish(w *player) {
	p.t.Helper()
	b := p.byte(256)
	p.serial++
	m := message(p.topic(playTopics[b%len(playTopics)]), byte(b>>3)%3, fmt.Sprint(p.serial))
	if m.Retain = b>>6 == 0; m.Retain && b&0x20 != 0 {
		m.Payload = nil
	}
	if m.QoS == 2 && len(w.two) >= 6 {
		return
	}
	if m.QoS > 0 {
		m.PacketID = w.pid()
	}
	p.note("%s publishes %s", w.id, describe(m))
	if m.QoS == 2 {
		w.two[m.PacketID] = m
		w.pids = append(w.pids, m.PacketID)
	}
	p.send(w, m)
}

func (p *play) send(w *player, m *packets.Publish) {
	w.send(m)
	p.ref.receive(w.sess, m.PacketID, &refMessage{topic: string(m.Topic), payload: string(m.Payload), qos: m.QoS, retain: m.Retain})
}

// again repeats a QoS 2 PUBLISH, or releases one.
func (p *play) again(w *player) {
	p.t.Helper()
	if len(w.pids) == 0 {
		return
	}
	pid := w.pids[p.byte(len(w.pids))]
	if p.byte(2) == 0 {
		m := *w.two[pid]
		m.Dup = true
		p.note("%s publishes again %s", w.id, describe(&m))
		p.send(w, &m)
		return
	}
	p.note("%s releases %d", w.id, pid)
	w.send(&packets.Ack{Type: packets.TypePubrel, PacketID: pid})
	w.pids = slices.DeleteFunc(w.pids, func(other uint16) bool { return other == pid })
	delete(w.two, pid)
	delete(w.sess.received, pid)
}

// answer acknowledges one of what the client has, the i-th; refuse 7 refuses a
// message. It reports false when there is nothing to acknowledge.
func (p *play) answer(w *player, i, refuse int) bool {
	p.t.Helper()
	var list []*refOut
	for _, o := range w.sess.out {
		if o.sent {
			list = append(list, o)
		}
	}
	if len(list) == 0 {
		return false
	}
	o := list[i%len(list)]
	a := &packets.Ack{Type: packets.TypePuback, PacketID: o.pid}
	switch {
	case o.released:
		a.Type = packets.TypePubcomp
	case o.qos == 2:
		a.Type = packets.TypePubrec
	}
	if refuse == 7 && w.v == packets.V5 && !o.released {
		a.Code = packets.CodeQuotaExceeded
	}
	p.note("%s answers %s", w.id, describe(a))
	w.send(a)
	w.sess.acknowledge(o, a.Type, a.Code)
	return true
}

// compare reads what everybody was sent, who acted first, and holds it against
// the reference.
func (p *play) compare(actor *player) {
	p.t.Helper()
	order := []*player{}
	if actor != nil {
		order = append(order, actor)
	}
	for range 2 { // a will goes out in a second step
		for _, w := range append(order, p.players...) {
			if w.client != nil {
				w.fence()
			}
		}
	}
	for _, w := range p.players {
		if w.client == nil {
			continue
		}
		p.hear(w)
		for n := 0; w.sess.missing() != nil && n < 500; n++ {
			w.fence() // retained messages may have to be looked up first
			p.hear(w)
		}
		if err := w.sess.missing(); err != nil {
			p.fail(w, "%v", err)
		}
		for a, n := range w.strict.answers {
			if n > 0 {
				p.fail(w, "no %s for %d", a.t, a.pid)
			}
		}
	}
}

// hear holds what has come for a client against the reference.
func (p *play) hear(w *player) {
	p.t.Helper()
	for _, packet := range w.pending {
		var err error
		switch packet := packet.(type) {
		case *packets.Publish:
			err = w.sess.heard(packet)
		case *packets.Ack:
			if packet.Type == packets.TypePubrel {
				err = w.sess.heard(packet)
			}
		case *packets.Disconnect:
			err = fmt.Errorf("not expected")
		}
		if err != nil {
			p.fail(w, "got %s: %v", describe(packet), err)
		}
	}
	w.pending = nil
}

// Random sequences of clients that connect, resume, subscribe, publish,
// acknowledge, leave and push each other out: the broker sends each what the
// reference says, in its order, with its QoS, RETAIN, DUP, identifiers and
// subscription identifiers, once.
//
// Proves 5.0 [MQTT-4.3.3-10] [MQTT-4.4.0-1] [MQTT-4.6.0-5] [MQTT-3.3.4-2] [MQTT-3.3.4-3] [MQTT-3.8.4-8] [MQTT-3.3.1-13] [MQTT-4.9.0-2]; 3.1.1 [MQTT-4.3.3-2] [MQTT-4.4.0-1] [MQTT-4.6.0-6] [MQTT-3.3.5-1] [MQTT-3.8.4-6].
func TestReference_RandomSequences(t *testing.T) {
	t.Parallel()
	in, err := playBroker(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := in.halt(); err != nil {
			t.Error(err)
		}
	})
	rapid.Check(t, func(t *rapid.T) {
		seed, n := rapid.Uint64().Draw(t, "seed"), rapid.IntRange(0, playScript).Draw(t, "length")
		newPlay(t, in, script(seed, n)).run()
	})
}

// script makes n bytes of a seed.
func script(seed uint64, n int) []byte {
	rnd := rand.New(rand.NewPCG(seed, 3))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rnd.Uint32())
	}
	return b
}

// FuzzReference is TestReference_RandomSequences for the fuzzer.
func FuzzReference(f *testing.F) {
	in, err := playBroker(f.TempDir())
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() {
		if err := in.halt(); err != nil {
			f.Error(err)
		}
	})
	f.Add([]byte{0, 0, 1, 2, 1, 1, 1, 5, 2, 1, 0, 3, 1, 12, 8})
	for seed := range uint64(20) { // something to begin with
		f.Add(script(seed, playScript))
	}
	f.Fuzz(func(t *testing.T, script []byte) { newPlay(t, in, script).run() })
}
