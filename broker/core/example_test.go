package core_test

import (
	"fmt"

	"github.com/wind-c/comqtt/v3/broker/core"
	"github.com/wind-c/comqtt/v3/broker/packets"
	"github.com/wind-c/comqtt/v3/session"
	"github.com/wind-c/comqtt/v3/wal/record"
)

// A durable subscriber that is away gets its message when it is back.
func Example() {
	m := core.New()
	var fx core.Effects
	now := int64(1_790_000_000_000)
	apply := func(r interface{ AppendTo(dst []byte) []byte }) *core.Effects {
		now += 1000
		if err := m.Apply(m.Applied()+1, now, r.AppendTo(nil), &fx); err != nil {
			panic(err)
		}
		return &fx
	}
	apply(&record.Genesis{FeatureLevel: core.FeatureLevel, Limits: record.Limits{MaxInflight: 256, SessionExpiryMax: session.Forever}})
	apply(&record.ServerStart{Boot: 1, Wall: now})

	connect := record.Connect{Epoch: record.NewEpoch(1, 1), ClientID: []byte("meter"), Version: 5, Expiry: 3600, ReceiveMaximum: 10}
	sid := apply(&connect).Reply.Session
	apply(&record.Subscribe{Session: sid, Epoch: connect.Epoch, Filters: []record.Filter{{Name: []byte("tariff/#"), Options: 1}}})
	apply(&record.Disconnect{Session: sid, Epoch: connect.Epoch})

	msg := packets.Message{Topic: []byte("tariff/night"), Payload: []byte("0.19")}
	apply(&record.Publish{QoS: 1, Message: msg.AppendTo(nil)})
	fmt.Println("queued:", m.Counts().Queued)

	connect.Epoch = record.NewEpoch(1, 2)
	reply := apply(&connect).Reply
	for _, e := range m.Session(reply.Ref).Out.Inflight() {
		fmt.Println("session present:", reply.Present, "- send message", e.Msg, "with identifier", e.PID)
	}
	// Output:
	// queued: 1
	// session present: true - send message 6 with identifier 1
}
