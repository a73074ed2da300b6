package broker

import (
	"slices"

	"github.com/wind-c/comqtt/v3/broker/failpoint"
	"github.com/wind-c/comqtt/v3/broker/packets"
	"github.com/wind-c/comqtt/v3/session/topic"
	"github.com/wind-c/comqtt/v3/wal/record"
)

// subscribe takes a SUBSCRIBE: what is granted becomes a record or, without a
// durable session, a command; the SUBACK follows its application.
func (c *conn) subscribe(f packets.Frame) error {
	var p packets.Subscribe
	if err := p.Decode(c.version, f.Flags(), f.Body); err != nil {
		return err
	}
	if err := c.checkAnswer(len(p.Filters)); err != nil {
		return err
	}
	codes := make([]byte, len(p.Filters))
	granted := make([]record.Filter, 0, len(p.Filters))
	for i := range p.Filters {
		code := c.grant(&p.Filters[i])
		codes[i] = byte(code)
		if code.IsError() && c.version == packets.V31 { // has no failure in its SUBACK (3.1 section 3.9)
			if code == packets.CodeTopicFilterInvalid {
				return errClosed // counted by grant
			}
			codes[i] = p.Filters[i].Options & 3
		}
		if !code.IsError() {
			granted = append(granted, record.Filter{
				Name: slices.Clone(p.Filters[i].Filter), Options: topic.Options(p.Filters[i].Options),
			})
		}
	}
	id := p.Props.SubscriptionID
	c.controlled()
	c.in.batch.lazy = false
	if !c.durable {
		if len(c.in.batch.items) == 0 && c.srv.claim() {
			c.srv.subscribeMemory(c, p.PacketID, id, granted, codes)
			c.srv.settleClaim(c)
			return nil
		}
		pid := p.PacketID
		c.in.batch.addCommand(c, func() { c.srv.subscribeMemory(c, pid, id, granted, codes) })
		return nil
	}
	if failpoint.Fault(failpoint.FaultSubackBeforeSync) {
		c.reply3(packets.TypeSuback, p.PacketID, codes)
	}
	if failpoint.Fault(failpoint.FaultLoseSubscription) && p.PacketID%2 == 0 {
		granted = granted[:0]
	}
	r := record.Subscribe{Session: c.session, Epoch: c.epoch, PacketID: p.PacketID, ID: id, Filters: granted}
	c.in.encoded = r.AppendTo(c.in.encoded[:0])
	c.in.batch.addRecord(item{conn: c, codes: codes}, c.in.encoded)
	return nil
}

// grant decides about one filter of a SUBSCRIBE.
func (c *conn) grant(f *packets.Subscription) packets.Code {
	l := &c.srv.opts.Limits
	if err := topic.ValidateFilter(f.Filter); err != nil {
		c.violated(invalidTopic(packets.CodeTopicFilterInvalid, err))
		return packets.CodeTopicFilterInvalid
	}
	if topic.Levels(f.Filter) > l.MaxTopicLevels {
		return packets.CodeTopicFilterInvalid
	}
	if a := c.srv.opts.Authenticator; a != nil && !a.Authorize(c.info(), string(f.Filter), false) {
		c.srv.stats.denied.Add(1)
		return packets.CodeNotAuthorized
	}
	if c.durable && c.srv.pushback.Load() {
		return packets.CodeQuotaExceeded
	}
	if !c.in.filters.has(f.Filter) {
		if c.in.filters.len() >= l.MaxSubscriptions {
			return packets.CodeQuotaExceeded
		}
		c.in.filters.add(string(f.Filter))
	}
	return packets.Code(f.Options & 3)
}

// unsubscribe takes an UNSUBSCRIBE.
func (c *conn) unsubscribe(f packets.Frame) error {
	var p packets.Unsubscribe
	if err := p.Decode(c.version, f.Flags(), f.Body); err != nil {
		return err
	}
	if err := c.checkAnswer(len(p.Filters)); err != nil {
		return err
	}
	filters := make([][]byte, len(p.Filters))
	for i, name := range p.Filters {
		if err := topic.ValidateFilter(name); err != nil {
			c.violated(invalidTopic(packets.CodeTopicFilterInvalid, err)) // and answered like any that there is not
		}
		filters[i] = slices.Clone(name)
		c.in.filters.remove(name)
	}
	c.controlled()
	c.in.batch.lazy = false
	if !c.durable {
		if len(c.in.batch.items) == 0 && c.srv.claim() {
			c.srv.unsubscribeMemory(c, p.PacketID, filters)
			c.srv.settleClaim(c)
			return nil
		}
		pid := p.PacketID
		c.in.batch.addCommand(c, func() { c.srv.unsubscribeMemory(c, pid, filters) })
		return nil
	}
	r := record.Unsubscribe{Session: c.session, Epoch: c.epoch, PacketID: p.PacketID, Filters: filters}
	c.in.encoded = r.AppendTo(c.in.encoded[:0])
	c.in.batch.addRecord(item{conn: c}, c.in.encoded)
	return nil
}

// reply3 sends a SUBACK or UNSUBACK at once: only a planted defect does that
// before the record is applied.
func (c *conn) reply3(t packets.Type, pid uint16, codes []byte) {
	c.mu.Lock()
	c.subackLocked(t, pid, codes, &c.in.touched)
	c.mu.Unlock()
}

// subackLocked appends a SUBACK or UNSUBACK. The caller holds mu.
func (c *conn) subackLocked(t packets.Type, pid uint16, codes []byte, touched *touch) {
	if c.closed {
		return
	}
	c.room()
	list := make([]packets.Code, len(codes))
	for i, code := range codes {
		list[i] = packets.Code(code)
	}
	if t == packets.TypeSuback {
		a := packets.Suback{PacketID: pid, Codes: list}
		c.out.buf = a.AppendTo(c.out.buf, c.version)
	} else {
		a := packets.Unsuback{PacketID: pid, Codes: list}
		c.out.buf = a.AppendTo(c.out.buf, c.version)
	}
	touched.add(c)
}
