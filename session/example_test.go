package session_test

import (
	"fmt"

	"github.com/wind-c/comqtt/v3/session"
)

// A QoS 2 message on its way to a client: queued, in flight, released, done.
func ExampleOutbound() {
	var out session.Outbound[uint64]
	out.Push(session.Entry[uint64]{Msg: 1001, QoS: 2}, nil, "")
	out.Push(session.Entry[uint64]{Msg: 1002, QoS: 1}, nil, "")
	e := out.Assign()
	fmt.Println("PUBLISH", e.PID, "of message", e.Msg, "-", out.Queued(), "queued")
	out.Released(e)
	fmt.Println("PUBREL", e.PID)
	out.Remove(e.PID)
	fmt.Println("done,", len(out.Inflight()), "in flight")
	// Output:
	// PUBLISH 1 of message 1001 - 1 queued
	// PUBREL 1
	// done, 0 in flight
}
