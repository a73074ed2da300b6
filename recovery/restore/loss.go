package restore

import (
	"slices"

	"github.com/wind-c/comqtt/v3/broker/core"
	"github.com/wind-c/comqtt/v3/broker/packets"
	"github.com/wind-c/comqtt/v3/session/topic"
	"github.com/wind-c/comqtt/v3/wal"
	"github.com/wind-c/comqtt/v3/wal/record"
)

// namesMax is how many topics and clients a Loss names.
const namesMax = 1000

// Loss says what a repair gives up: the records from From to To.
type Loss struct {
	From       uint64   `json:"from"`
	To         uint64   `json:"to"`
	Records    uint64   `json:"records"`
	Unreadable uint64   `json:"unreadable"` // of them: what they were cannot be said
	Messages   int      `json:"messages"`   // readable publishes among them
	Topics     []string `json:"topics"`     // of those, at most a thousand
	// Clients are those whose sessions the readable records concern: they would
	// have got the messages, or connected, subscribed, acknowledged.
	Clients []string `json:"clients"`
}

// lossOf describes the loss of the records after state, the machine as it is
// before them. remains is where some of them may still be read.
func lossOf(m *core.Machine, from, to uint64, remains *wal.Remains) Loss {
	l := Loss{From: from, To: to, Topics: []string{}, Clients: []string{}}
	if from > to {
		return l
	}
	l.Records, l.Unreadable = to-from+1, to-from+1
	c := collector{m: m, topics: map[string]bool{}, clients: map[string]bool{}, born: map[uint64]string{}}
	err := remains.Each(from, func(f *wal.Frame) error {
		if f.First > to {
			return nil
		}
		return f.Records(func(index uint64, rec []byte) error {
			if index <= to {
				l.Unreadable--
				c.record(index, rec)
			}
			return nil
		})
	})
	if err != nil { // what could be read was counted
		l.Unreadable = max(l.Unreadable, 1)
	}
	l.Messages, l.Topics, l.Clients = c.messages, names(c.topics), names(c.clients)
	return l
}

func names(set map[string]bool) []string {
	list := make([]string, 0, len(set))
	for n := range set {
		list = append(list, n)
	}
	slices.Sort(list)
	return list[:min(len(list), namesMax)]
}

// collector collects whom records concern.
type collector struct {
	m        *core.Machine
	messages int
	topics   map[string]bool
	clients  map[string]bool
	born     map[uint64]string // sessions that began among the lost records
	matches  topic.Matches
}

func (c *collector) session(id uint64) {
	if s := c.m.SessionByID(id); s != nil {
		c.clients[s.ClientID] = true
	} else if name := c.born[id]; name != "" {
		c.clients[name] = true
	}
}

// record looks at one record. One that cannot be decoded is of a newer version:
// its frame is intact.
func (c *collector) record(index uint64, rec []byte) {
	switch record.KindOf(rec) {
	case record.KindPublish:
		var p record.Publish
		if p.Decode(rec) == nil {
			c.publish(&p)
		}
	case record.KindConnect:
		var r record.Connect
		if r.Decode(rec) == nil {
			c.clients[string(r.ClientID)] = true
			c.born[index] = string(r.ClientID)
		}
	case record.KindDisconnect:
		var r record.Disconnect
		if r.Decode(rec) == nil {
			c.session(r.Session)
		}
	case record.KindSubscribe:
		var r record.Subscribe
		if r.Decode(rec) == nil {
			c.session(r.Session)
		}
	case record.KindUnsubscribe:
		var r record.Unsubscribe
		if r.Decode(rec) == nil {
			c.session(r.Session)
		}
	case record.KindAck:
		var r record.Ack
		if r.Decode(rec) == nil {
			c.session(r.Session)
		}
	case record.KindRec:
		var r record.Rec
		if r.Decode(rec) == nil {
			c.session(r.Session)
		}
	case record.KindPubRel:
		var r record.PubRel
		if r.Decode(rec) == nil {
			c.session(r.Session)
		}
	case record.KindSessionRemove:
		var r record.SessionRemove
		if r.Decode(rec) == nil {
			c.clients[string(r.ClientID)] = true
		}
	case record.KindRetainClear:
		var r record.RetainClear
		if r.Decode(rec) == nil {
			c.topics[string(r.Topic)] = true
		}
	}
}

// publish names the topic and those who would have got the message.
func (c *collector) publish(p *record.Publish) {
	msg, err := packets.ParseMessage(p.Message)
	if err != nil {
		return
	}
	c.messages++
	c.topics[string(msg.Topic)] = true
	c.session(p.Session)
	c.m.Index().Match(msg.Topic, &c.matches)
	for _, s := range c.matches.Subs {
		if sess := c.m.Session(s.Ref); sess != nil {
			c.clients[sess.ClientID] = true
		}
	}
}
