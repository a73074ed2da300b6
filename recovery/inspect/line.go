package inspect

import (
	"fmt"
	"strings"

	"github.com/wind-c/comqtt/v3/broker/packets"
	"github.com/wind-c/comqtt/v3/wal/record"
)

// Line is one record, in words. Fields that its kind does not have are empty.
type Line struct {
	Index uint64 `json:"index"`
	Time  Time   `json:"time"`
	Kind  string `json:"kind"`
	Bytes int    `json:"bytes"` // of the record

	Client   string `json:"client,omitempty"` // who caused it, as far as the records that were read tell
	User     string `json:"user,omitempty"`
	Session  uint64 `json:"session,omitempty"` // index of the Connect that began it
	Epoch    Epoch  `json:"connection,omitempty"`
	PacketID uint16 `json:"packet_id,omitempty"`

	Topic         string   `json:"topic,omitempty"`
	QoS           *uint8   `json:"qos,omitempty"`
	Retain        bool     `json:"retain,omitempty"`
	Expiry        *uint32  `json:"expiry,omitempty"` // seconds, of a message or session
	WillOf        uint64   `json:"will,omitempty"`   // id of the due will that the message publishes
	ContentType   string   `json:"content_type,omitempty"`
	ResponseTopic string   `json:"response_topic,omitempty"`
	Choices       []Choice `json:"choices,omitempty"`
	payload

	Filters    []Subscription `json:"filters,omitempty"`
	Version    uint8          `json:"version,omitempty"` // of the protocol: 3, 4 or 5
	CleanStart bool           `json:"clean_start,omitempty"`
	Will       *Will          `json:"last_will,omitempty"`
	DropWill   bool           `json:"drop_will,omitempty"`
	Reason     string         `json:"reason,omitempty"`
	Packets    [][2]uint16    `json:"packets,omitempty"` // first and last identifier of each run
	Group      string         `json:"group,omitempty"`   // $share/NAME/FILTER
	Message    uint64         `json:"message,omitempty"` // index of its publish
	Member     string         `json:"member,omitempty"`
	By         string         `json:"by,omitempty"`
	Hash       *ID            `json:"hash,omitempty"`
	Of         uint64         `json:"of,omitempty"` // record whose state has the hash
	Boot       uint32         `json:"boot,omitempty"`
	Level      uint32         `json:"level,omitempty"`
	Limits     *record.Limits `json:"limits,omitempty"`

	// Detail is the record in words, fit for a terminal.
	Detail string `json:"-"`

	members []member // who else it concerns
}

// Will is a will.
type Will struct {
	Topic  string `json:"topic"`
	QoS    uint8  `json:"qos"`
	Retain bool   `json:"retain,omitempty"`
	Delay  uint32 `json:"delay,omitempty"` // seconds
}

// Choice is the member of a shared group that was picked for a message.
type Choice struct {
	Group  string `json:"group"`
	Member string `json:"member,omitempty"` // empty: nobody, the message waits
}

type member struct {
	session uint64
	epoch   record.Epoch
}

// liner turns records into lines.
type liner struct {
	names   *names
	payload string // form
	most    int    // bytes of a payload
}

// line decodes a record. What it aliases of rec is copied.
func (r *liner) line(index uint64, now int64, rec []byte) (*Line, error) {
	kind := record.KindOf(rec)
	l := &Line{Index: index, Time: Time(now), Kind: kind.String(), Bytes: len(rec)}
	var err error
	switch kind {
	case record.KindConnect, record.KindDisconnect, record.KindWill, record.KindSessionRemove:
		err = r.session(l, kind, rec)
	case record.KindSubscribe, record.KindUnsubscribe:
		err = r.subscription(l, kind, rec)
	case record.KindPublish:
		err = r.publish(l, rec)
	case record.KindPubRel, record.KindAck, record.KindRec:
		err = r.ack(l, kind, rec)
	case record.KindDispatch, record.KindRetainClear:
		err = r.other(l, kind, rec)
	default:
		err = r.server(l, kind, rec)
	}
	if err != nil {
		return nil, err
	}
	return l, nil
}

// from says whose record it is.
func (r *liner) from(l *Line, session uint64, epoch record.Epoch) {
	l.Session, l.Epoch = session, Epoch(epoch)
	l.Client = r.names.of(session, epoch)
}

func (r *liner) session(l *Line, kind record.Kind, rec []byte) error {
	var parts []string
	switch kind {
	case record.KindConnect:
		var c record.Connect
		if err := c.Decode(rec); err != nil {
			return err
		}
		l.Client, l.User, l.Version = string(c.ClientID), string(c.User), c.Version
		l.Epoch, l.CleanStart, l.Expiry = Epoch(c.Epoch), c.CleanStart, &c.Expiry
		r.names.connect(l.Index, c.Epoch, l.Client)
		parts = append(parts, fmt.Sprintf("protocol %d, connection %s, expiry %s", c.Version, l.Epoch, expiryWords(c.Expiry)))
		if c.CleanStart {
			parts = append(parts, "clean start")
		}
		if l.User != "" {
			parts = append(parts, "user "+Printable(l.User))
		}
		if c.HasWill {
			l.Will = willOf(&c.Will)
			parts = append(parts, l.Will.words())
		}
	case record.KindDisconnect:
		var d record.Disconnect
		if err := d.Decode(rec); err != nil {
			return err
		}
		r.from(l, d.Session, d.Epoch)
		l.Reason, l.DropWill = fmt.Sprintf("0x%02x", d.Reason), d.DropWill
		parts = append(parts, "reason "+l.Reason)
		if d.DropWill {
			parts = append(parts, "the will is dropped")
		}
		if d.HasExpiry {
			l.Expiry = &d.Expiry
			parts = append(parts, "expiry now "+expiryWords(d.Expiry))
		}
	case record.KindWill:
		var w record.LoggedWill
		if err := w.Decode(rec); err != nil {
			return err
		}
		l.Client, l.User, l.Epoch, l.Will = string(w.ClientID), string(w.User), Epoch(w.Epoch), willOf(&w.Will)
		r.names.note(0, w.Epoch, l.Client)
		parts = append(parts, l.Will.words())
	default:
		var s record.SessionRemove
		if err := s.Decode(rec); err != nil {
			return err
		}
		l.Client, l.By = string(s.ClientID), string(s.By)
		parts = append(parts, "by "+Printable(l.By))
	}
	l.Detail = strings.Join(parts, ", ")
	return nil
}

func expiryWords(seconds uint32) string {
	if seconds == 1<<32-1 {
		return "never"
	}
	return fmt.Sprintf("%d s", seconds)
}

func willOf(w *record.Will) *Will {
	out := &Will{QoS: w.QoS, Retain: w.Retain, Delay: w.Delay}
	if m, err := packets.ParseMessage(w.Message); err == nil {
		out.Topic = string(m.Topic)
	}
	return out
}

func (w *Will) words() string {
	s := fmt.Sprintf("will to %s, QoS %d", Printable(w.Topic), w.QoS)
	if w.Retain {
		s += ", retained"
	}
	if w.Delay > 0 {
		s += fmt.Sprintf(", delay %d s", w.Delay)
	}
	return s
}

func (r *liner) subscription(l *Line, kind record.Kind, rec []byte) error {
	var parts []string
	if kind == record.KindUnsubscribe {
		var u record.Unsubscribe
		if err := u.Decode(rec); err != nil {
			return err
		}
		r.from(l, u.Session, u.Epoch)
		l.PacketID = u.PacketID
		for _, f := range u.Filters {
			l.Filters = append(l.Filters, Subscription{Filter: string(f)})
			parts = append(parts, Printable(string(f)))
		}
		l.Detail = strings.Join(parts, ", ")
		return nil
	}
	var s record.Subscribe
	if err := s.Decode(rec); err != nil {
		return err
	}
	r.from(l, s.Session, s.Epoch)
	l.PacketID = s.PacketID
	for _, f := range s.Filters {
		sub := subscriptionOf(string(f.Name), f.Options, s.ID)
		l.Filters = append(l.Filters, sub)
		parts = append(parts, sub.words())
	}
	l.Detail = strings.Join(parts, ", ")
	return nil
}

func (s *Subscription) words() string {
	w := fmt.Sprintf("%s QoS %d", Printable(s.Filter), s.QoS)
	if s.NoLocal {
		w += " no-local"
	}
	if s.ID != 0 {
		w += fmt.Sprintf(" id %d", s.ID)
	}
	return w
}

func (r *liner) publish(l *Line, rec []byte) error {
	var p record.Publish
	if err := p.Decode(rec); err != nil {
		return err
	}
	r.from(l, p.Session, p.Epoch)
	l.PacketID, l.QoS, l.Retain, l.WillOf = p.PacketID, &p.QoS, p.Retain, p.WillOf
	if p.HasExpiry {
		l.Expiry = &p.Expiry
	}
	for i := range p.Choices {
		c := &p.Choices[i]
		l.members = append(l.members, member{c.Session, c.Epoch})
		l.Choices = append(l.Choices, Choice{
			Group: "$share/" + string(c.Share) + "/" + string(c.Filter), Member: r.member(c.Session, c.Epoch),
		})
	}
	if len(p.Message) == 0 && p.WillOf != 0 {
		l.Detail = fmt.Sprintf("will %d is not published", p.WillOf)
		return nil
	}
	var m packets.Publish
	if err := m.Decode(packets.V5, 0, p.Message); err != nil {
		return fmt.Errorf("stored message: %w", err)
	}
	l.Topic, l.ContentType, l.ResponseTopic = string(m.Topic), string(m.Props.ContentType), string(m.Props.ResponseTopic)
	l.setPayload(m.Payload, r.payload, r.most)
	var b strings.Builder
	fmt.Fprintf(&b, "%s QoS %d", Printable(l.Topic), p.QoS)
	if p.Retain {
		b.WriteString(" retain")
	}
	if p.WillOf != 0 {
		fmt.Fprintf(&b, " will %d", p.WillOf)
	}
	if p.HasExpiry {
		fmt.Fprintf(&b, " expiry %d s", p.Expiry)
	}
	b.WriteString(" " + l.words())
	for _, c := range l.Choices {
		fmt.Fprintf(&b, ", %s → %s", Printable(c.Group), orNobody(c.Member))
	}
	l.Detail = b.String()
	return nil
}

// member names who was chosen.
func (r *liner) member(session uint64, epoch record.Epoch) string {
	switch name := r.names.of(session, epoch); {
	case name != "":
		return name
	case session != 0:
		return "session " + itoa(session)
	case epoch != 0:
		return "connection " + Epoch(epoch).String()
	}
	return ""
}

func orNobody(member string) string {
	if member == "" {
		return "nobody yet"
	}
	return Printable(member)
}

func (r *liner) ack(l *Line, kind record.Kind, rec []byte) error {
	switch kind {
	case record.KindPubRel:
		var p record.PubRel
		if err := p.Decode(rec); err != nil {
			return err
		}
		r.from(l, p.Session, p.Epoch)
		l.PacketID, l.Detail = p.PacketID, fmt.Sprintf("packet %d", p.PacketID)
	case record.KindRec:
		var p record.Rec
		if err := p.Decode(rec); err != nil {
			return err
		}
		r.from(l, p.Session, p.Epoch)
		l.PacketID, l.Reason = p.PacketID, fmt.Sprintf("0x%02x", p.Code)
		l.Detail = fmt.Sprintf("packet %d, code %s", p.PacketID, l.Reason)
	default:
		var a record.Ack
		if err := a.Decode(rec); err != nil {
			return err
		}
		r.from(l, a.Session, a.Epoch)
		l.Reason, l.Message = a.Reason.String(), a.Message
		if a.Message != 0 {
			l.Group = "$share/" + string(a.Share) + "/" + string(a.Filter)
			l.Detail = fmt.Sprintf("message %d of %s: %s", a.Message, Printable(l.Group), l.Reason)
			return nil
		}
		var runs []string
		for _, run := range a.Runs {
			last := run.First + max(run.Count, 1) - 1
			l.Packets = append(l.Packets, [2]uint16{run.First, last})
			if run.Count == 1 {
				runs = append(runs, itoa(uint64(run.First)))
			} else {
				runs = append(runs, fmt.Sprintf("%d-%d", run.First, last))
			}
		}
		word := "packets"
		if len(a.Runs) == 1 && a.Runs[0].Count == 1 {
			word = "packet"
		}
		l.Detail = fmt.Sprintf("%s %s: %s", word, strings.Join(runs, ", "), l.Reason)
	}
	return nil
}

func (r *liner) other(l *Line, kind record.Kind, rec []byte) error {
	if kind == record.KindRetainClear {
		var c record.RetainClear
		if err := c.Decode(rec); err != nil {
			return err
		}
		l.Topic, l.By = string(c.Topic), string(c.By)
		l.Detail = fmt.Sprintf("%s by %s", Printable(l.Topic), Printable(l.By))
		return nil
	}
	var d record.Dispatch
	if err := d.Decode(rec); err != nil {
		return err
	}
	l.Group, l.Message = "$share/"+string(d.Share)+"/"+string(d.Filter), d.Message
	l.Member = r.member(d.Session, d.Epoch)
	l.members = append(l.members, member{d.Session, d.Epoch}, member{0, d.From})
	l.Detail = fmt.Sprintf("message %d of %s → %s", d.Message, Printable(l.Group), orNobody(l.Member))
	return nil
}

func (r *liner) server(l *Line, kind record.Kind, rec []byte) (err error) {
	switch kind {
	case record.KindGenesis:
		var g record.Genesis
		err = g.Decode(rec)
		l.Level, l.Limits = g.FeatureLevel, &g.Limits
		l.Detail = fmt.Sprintf("store %x, feature level %d, %s", g.StoreID, g.FeatureLevel, limitWords(&g.Limits))
	case record.KindConfig:
		var c record.Config
		err = c.Decode(rec)
		l.Limits, l.Detail = &c.Limits, limitWords(&c.Limits)
	case record.KindServerStart:
		var s record.ServerStart
		err = s.Decode(rec)
		l.Boot, l.Detail = s.Boot, fmt.Sprintf("boot %d, wall clock %s", s.Boot, Time(s.Wall))
	case record.KindTick:
		var t record.Tick
		err = t.Decode(rec)
	case record.KindStateHash:
		var h record.StateHash
		err = h.Decode(rec)
		id := ID(h.Hash)
		l.Hash, l.Of, l.Detail = &id, h.Index, fmt.Sprintf("after record %d: %s", h.Index, id)
	case record.KindUpgrade:
		var u record.Upgrade
		err = u.Decode(rec)
		l.Level, l.Detail = u.Level, fmt.Sprintf("to feature level %d", u.Level)
	default:
		version := uint8(0)
		if len(rec) > 1 {
			version = rec[1]
		}
		err = &record.UnknownError{Kind: kind, Version: version}
	}
	return err
}

func limitWords(l *record.Limits) string {
	s := fmt.Sprintf("in flight %d, queue %d messages and %d bytes, expiry at most %s, grace %d s", l.MaxInflight,
		l.QueueMessages, l.QueueBytes, expiryWords(l.SessionExpiryMax), l.RestartGrace)
	if l.ShareUsers {
		s += ", users share sessions"
	}
	if l.DropOldest {
		s += ", a full queue drops the oldest"
	}
	return s
}
