package record

import (
	"pgregory.net/rapid"

	"github.com/wind-c/comqtt/v3/session/topic"
)

var (
	drawBytes = rapid.SliceOfN(rapid.Byte(), 0, 40)
	drawEpoch = rapid.Map(rapid.Uint64(), func(v uint64) Epoch { return Epoch(v) })
	drawQoS   = rapid.Uint8Range(0, 2)

	drawOptions = rapid.Custom(func(t *rapid.T) topic.Options {
		flags := rapid.SampledFrom([]topic.Options{0, topic.NoLocal, topic.RetainAsPublished}).Draw(t, "flags")
		return topic.MakeOptions(drawQoS.Draw(t, "granted"), rapid.Uint8Max(2).Draw(t, "handling"), flags)
	})
)

func drawLimits(t *rapid.T) Limits {
	return Limits{
		MaxInflight:   rapid.Uint16().Draw(t, "max inflight"),
		QueueMessages: rapid.Uint64().Draw(t, "queue messages"), QueueBytes: rapid.Uint64().Draw(t, "queue bytes"),
		SessionExpiryMax: rapid.Uint32().Draw(t, "expiry maximum"), RestartGrace: rapid.Uint32().Draw(t, "grace"),
		ShareUsers: rapid.Bool().Draw(t, "share users"), DropOldest: rapid.Bool().Draw(t, "drop oldest"),
	}
}

func drawWill(t *rapid.T) Will {
	w := Will{
		QoS: drawQoS.Draw(t, "will qos"), Retain: rapid.Bool().Draw(t, "will retain"), Delay: rapid.Uint32().Draw(t, "delay"),
		HasExpiry: rapid.Bool().Draw(t, "has will expiry"), Message: drawBytes.Draw(t, "will message"),
	}
	if w.HasExpiry {
		w.Expiry = rapid.Uint32().Draw(t, "will expiry")
	}
	return w
}

// drawMember draws who gets a group's message, as an encoder may state it.
func drawMember(t *rapid.T) (session uint64, epoch Epoch, qos uint8) {
	switch rapid.IntRange(0, 2).Draw(t, "member") {
	case 0:
		return 1 + rapid.Uint64Max(1<<63).Draw(t, "member session"), 0, 0
	case 1:
		return 0, 1 + Epoch(rapid.Uint64Max(1<<63).Draw(t, "member epoch")), drawQoS.Draw(t, "member qos")
	}
	return 0, 0, 0
}

func drawPublish(t *rapid.T) *Publish {
	p := &Publish{
		Session: rapid.Uint64().Draw(t, "session"), Epoch: drawEpoch.Draw(t, "epoch"),
		WillOf: rapid.Uint64().Draw(t, "will of"), PacketID: rapid.Uint16().Draw(t, "packet id"),
		QoS: drawQoS.Draw(t, "qos"), Retain: rapid.Bool().Draw(t, "retain"),
		HasExpiry: rapid.Bool().Draw(t, "has expiry"), Message: drawBytes.Draw(t, "message"),
	}
	if p.HasExpiry {
		p.Expiry = rapid.Uint32().Draw(t, "expiry")
	}
	for range rapid.IntRange(0, 3).Draw(t, "choices") {
		c := Choice{Share: drawBytes.Draw(t, "share"), Filter: drawBytes.Draw(t, "filter")}
		c.Session, c.Epoch, c.QoS = drawMember(t)
		p.Choices = append(p.Choices, c)
	}
	return p
}

func drawAck(t *rapid.T) *Ack {
	a := &Ack{
		Session: rapid.Uint64().Draw(t, "session"), Epoch: drawEpoch.Draw(t, "epoch"),
		Reason: AckReason(rapid.Uint8Max(uint8(AckDenied)).Draw(t, "reason")),
	}
	if rapid.Bool().Draw(t, "of a group") {
		a.Share, a.Filter = drawBytes.Draw(t, "share"), drawBytes.Draw(t, "filter")
		a.Message = 1 + rapid.Uint64Max(1<<63).Draw(t, "message")
		return a
	}
	for range rapid.IntRange(0, 5).Draw(t, "runs") {
		a.Runs = append(a.Runs, Run{rapid.Uint16().Draw(t, "first"), rapid.Uint16().Draw(t, "count")})
	}
	return a
}

// draw draws any record of a kind.
func draw(t *rapid.T, k Kind) encoded {
	sid, epoch := rapid.Uint64(), drawEpoch
	switch k {
	case KindGenesis:
		return &Genesis{
			StoreID:      [16]byte(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "store id")),
			FeatureLevel: rapid.Uint32().Draw(t, "level"), Limits: drawLimits(t),
		}
	case KindConfig:
		return &Config{Limits: drawLimits(t)}
	case KindServerStart:
		return &ServerStart{Boot: rapid.Uint32().Draw(t, "boot"), Wall: rapid.Int64().Draw(t, "wall")}
	case KindConnect:
		c := &Connect{
			Epoch: epoch.Draw(t, "epoch"), ClientID: drawBytes.Draw(t, "client"), User: drawBytes.Draw(t, "user"),
			Version: rapid.Uint8().Draw(t, "version"), CleanStart: rapid.Bool().Draw(t, "clean"),
			HasWill: rapid.Bool().Draw(t, "has will"), Expiry: rapid.Uint32().Draw(t, "expiry"),
			ReceiveMaximum: rapid.Uint16().Draw(t, "receive maximum"), MaxPacket: rapid.Uint32().Draw(t, "max packet"),
		}
		if c.HasWill {
			c.Will = drawWill(t)
		}
		return c
	case KindDisconnect:
		d := &Disconnect{
			Session: sid.Draw(t, "session"), Epoch: epoch.Draw(t, "epoch"), DropWill: rapid.Bool().Draw(t, "drop will"),
			HasExpiry: rapid.Bool().Draw(t, "has expiry"), Reason: rapid.Uint8().Draw(t, "reason"),
		}
		if d.HasExpiry {
			d.Expiry = rapid.Uint32().Draw(t, "expiry")
		}
		return d
	case KindWill:
		return &LoggedWill{
			Epoch: epoch.Draw(t, "epoch"), ClientID: drawBytes.Draw(t, "client"), User: drawBytes.Draw(t, "user"), Will: drawWill(t),
		}
	case KindSubscribe:
		s := &Subscribe{
			Session: sid.Draw(t, "session"), Epoch: epoch.Draw(t, "epoch"), PacketID: rapid.Uint16().Draw(t, "packet id"),
			ID: rapid.Uint32().Draw(t, "id"),
		}
		for range rapid.IntRange(0, 3).Draw(t, "filters") {
			s.Filters = append(s.Filters, Filter{drawBytes.Draw(t, "filter"), drawOptions.Draw(t, "options")})
		}
		return s
	case KindUnsubscribe:
		u := &Unsubscribe{Session: sid.Draw(t, "session"), Epoch: epoch.Draw(t, "epoch"), PacketID: rapid.Uint16().Draw(t, "packet id")}
		for range rapid.IntRange(0, 3).Draw(t, "filters") {
			u.Filters = append(u.Filters, drawBytes.Draw(t, "filter"))
		}
		return u
	case KindPublish:
		return drawPublish(t)
	case KindAck:
		return drawAck(t)
	}
	return drawSmall(t, k)
}

func drawSmall(t *rapid.T, k Kind) encoded {
	switch k {
	case KindPubRel:
		return &PubRel{rapid.Uint64().Draw(t, "session"), drawEpoch.Draw(t, "epoch"), rapid.Uint16().Draw(t, "packet id")}
	case KindRec:
		return &Rec{
			Session: rapid.Uint64().Draw(t, "session"), Epoch: drawEpoch.Draw(t, "epoch"),
			PacketID: rapid.Uint16().Draw(t, "packet id"), Code: rapid.Uint8().Draw(t, "code"),
		}
	case KindDispatch:
		d := &Dispatch{Share: drawBytes.Draw(t, "share"), Filter: drawBytes.Draw(t, "filter"), Message: rapid.Uint64().Draw(t, "message")}
		if d.Session, d.Epoch, d.QoS = drawMember(t); d.Session == 0 && d.Epoch == 0 {
			d.From = drawEpoch.Draw(t, "from")
		}
		return d
	case KindSessionRemove:
		return &SessionRemove{drawBytes.Draw(t, "client"), drawBytes.Draw(t, "by")}
	case KindRetainClear:
		return &RetainClear{drawBytes.Draw(t, "topic"), drawBytes.Draw(t, "by")}
	case KindStateHash:
		return &StateHash{rapid.Uint64().Draw(t, "index"), [16]byte(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "hash"))}
	case KindUpgrade:
		return &Upgrade{rapid.Uint32().Draw(t, "level")}
	}
	return &Tick{}
}
