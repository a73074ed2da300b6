package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// The histories below are what a client would have seen. Each begins with one
// publisher p and one subscriber s, both durable, s subscribed to t/# at QoS 2.
const subscribed = `
p#1 > CONNECT expiry=4294967295
p#1 < CONNACK
s#1 > CONNECT expiry=4294967295
s#1 < CONNACK
s#1 > SUBSCRIBE id=1 qos=2 filter=t/#
s#1 < SUBACK id=1 code=2 filter=t/#
`

func judge(t *testing.T, history string) *Checker {
	t.Helper()
	events, err := ParseTranscript(strings.NewReader(history))
	if err != nil {
		t.Fatal(err)
	}
	c := NewChecker()
	for i := range events {
		c.Observe(&events[i])
	}
	c.Finish()
	return c
}

func rules(c *Checker) []string {
	var names []string
	found, _ := c.Findings()
	for i := range found {
		names = append(names, found[i].Rule)
	}
	return names
}

const shared = `
p#1 > CONNECT expiry=4294967295
p#1 < CONNACK
a#1 > CONNECT expiry=4294967295
a#1 < CONNACK
b#1 > CONNECT expiry=4294967295
b#1 < CONNACK
a#1 > SUBSCRIBE id=1 qos=2 filter=$share/x/g/#
a#1 < SUBACK id=1 code=2 filter=$share/x/g/#
b#1 > SUBSCRIBE id=1 qos=2 filter=$share/x/g/#
b#1 < SUBACK id=1 code=2 filter=$share/x/g/#
`

// completed is one QoS 2 message, published to the end.
const completed = subscribed + `
p#1 > PUBLISH id=1 qos=2 msg=p:2:t/a:1
p#1 < PUBREC id=1
p#1 > PUBREL id=1
p#1 < PUBCOMP id=1
`

// acknowledged3 are three QoS 1 messages, published to the end.
const acknowledged3 = subscribed + `
p#1 > PUBLISH id=1 qos=1 msg=p:1:t/a:1
p#1 > PUBLISH id=2 qos=1 msg=p:1:t/a:2
p#1 > PUBLISH id=3 qos=1 msg=p:1:t/a:3
p#1 < PUBACK id=1
p#1 < PUBACK id=2
p#1 < PUBACK id=3
`

const retained2 = `
p#1 > CONNECT expiry=4294967295
p#1 < CONNACK
p#1 > PUBLISH id=1 qos=1 retain msg=p:1:r/a:1
p#1 < PUBACK id=1
p#1 > PUBLISH id=1 qos=1 retain msg=p:1:r/a:2
p#1 < PUBACK id=1
r#1 > CONNECT clean
r#1 < CONNACK
r#1 > SUBSCRIBE id=1 qos=1 filter=r/#
r#1 < SUBACK id=1 code=1 filter=r/#
`

func TestEachViolationIsFound(t *testing.T) {
	for _, tc := range []struct {
		name, rule, text, history string
	}{
		{"PUBACK, then nothing", "lost", "never reached s", subscribed + `
			p#1 > PUBLISH id=1 qos=1 msg=p:1:t/a:1
			p#1 < PUBACK id=1`},
		{"PUBREC, then nothing", "lost", "never reached s", completed},
		{"lost from the offline queue by a kill", "lost", "never reached s", subscribed + `
			s#1 < END
			p#1 > PUBLISH id=1 qos=1 msg=p:1:t/a:1
			p#1 < PUBACK id=1
			- KILL
			p#1 < END
			- READY
			s#2 > CONNECT expiry=4294967295
			s#2 < CONNACK present`},
		{"a later one came, so this one cannot", "lost", "p:1:t/a:1, acknowledged", subscribed + `
			p#1 > PUBLISH id=1 qos=1 msg=p:1:t/a:1
			p#1 > PUBLISH id=2 qos=1 msg=p:1:t/a:2
			p#1 < PUBACK id=1
			p#1 < PUBACK id=2
			s#1 < PUBLISH id=1 qos=1 msg=p:1:t/a:2
			s#1 > PUBACK id=1`},
		{"lost to a whole group", "lost", "$share/x/g/#", shared + `
			p#1 > PUBLISH id=1 qos=1 msg=p:1:g/a:1
			p#1 < PUBACK id=1`},
		{"acknowledged before the clean start of another client", "lost", "never reached s", subscribed + `
			p#1 > PUBLISH id=1 qos=1 msg=p:1:t/a:1
			p#1 < PUBACK id=1
			p#1 < END
			p#2 > CONNECT clean expiry=4294967295
			p#2 < CONNACK`},
		{"never acknowledged", "stuck", "never acknowledged", subscribed + `
			p#1 > PUBLISH id=1 qos=1 msg=p:1:t/a:1`},

		{"PUBLISH after PUBREL: the early PUBREL of D3", "duplicate-qos2", "PUBREL had come", completed + `
			s#1 < PUBLISH id=1 qos=2 msg=p:2:t/a:1
			s#1 > PUBREC id=1
			s#1 < PUBREL id=1
			- KILL
			s#1 < END
			s#2 > CONNECT expiry=4294967295
			s#2 < CONNACK present
			s#2 < PUBLISH id=1 qos=2 dup msg=p:2:t/a:1
			s#2 > PUBREC id=1
			s#2 < PUBREL id=1
			s#2 > PUBCOMP id=1`},
		{"resent QoS 2 publish was taken twice", "duplicate-qos2", "delivered twice", subscribed + `
			p#1 > PUBLISH id=1 qos=2 msg=p:2:t/a:1
			- KILL
			p#1 < END
			p#2 > CONNECT expiry=4294967295
			p#2 < CONNACK present
			p#2 > PUBLISH id=1 qos=2 dup msg=p:2:t/a:1
			p#2 < PUBREC id=1
			p#2 > PUBREL id=1
			p#2 < PUBCOMP id=1
			s#1 < PUBLISH id=1 qos=2 msg=p:2:t/a:1
			s#1 > PUBREC id=1
			s#1 < PUBLISH id=2 qos=2 msg=p:2:t/a:1
			s#1 < PUBREL id=1
			s#1 > PUBCOMP id=1`},
		{"two members of a group", "duplicate-qos2", "two members", shared + `
			p#1 > PUBLISH id=1 qos=2 msg=p:2:g/a:1
			p#1 < PUBREC id=1
			p#1 > PUBREL id=1
			p#1 < PUBCOMP id=1
			a#1 < PUBLISH id=1 qos=2 msg=p:2:g/a:1
			b#1 < PUBLISH id=1 qos=2 msg=p:2:g/a:1
			a#1 > PUBREC id=1
			b#1 > PUBREC id=1
			a#1 < PUBREL id=1
			b#1 < PUBREL id=1`},
		{"QoS 1 twice on one connection", "duplicate-qos1", "2 times", acknowledged3 + `
			s#1 < PUBLISH id=1 qos=1 msg=p:1:t/a:1
			s#1 > PUBACK id=1
			s#1 < PUBLISH id=2 qos=1 msg=p:1:t/a:1
			s#1 < PUBLISH id=3 qos=1 msg=p:1:t/a:2
			s#1 < PUBLISH id=4 qos=1 msg=p:1:t/a:3`},
		{"QoS 1 again although the PUBACK was read", "duplicate-qos1", "PUBACK was read", acknowledged3 + `
			s#1 < PUBLISH id=1 qos=1 msg=p:1:t/a:1
			s#1 < PUBLISH id=2 qos=1 msg=p:1:t/a:2
			s#1 < PUBLISH id=3 qos=1 msg=p:1:t/a:3
			s#1 > PUBACK id=1
			s#1 > PUBACK id=2
			s#1 > PUBACK id=3
			s#1 > DISCONNECT
			s#1 < END graceful
			s#2 > CONNECT expiry=4294967295
			s#2 < CONNACK present
			s#2 < PUBLISH id=1 qos=1 dup msg=p:1:t/a:1
			s#2 > PUBACK id=1`},
		{"QoS 0 twice", "duplicate-qos0", "twice", subscribed + `
			p#1 > PUBLISH qos=0 msg=p:0:t/a:1
			s#1 < PUBLISH qos=0 msg=p:0:t/a:1
			s#1 < PUBLISH qos=0 msg=p:0:t/a:1`},

		{"first deliveries out of order", "order", "after number 3", acknowledged3 + `
			s#1 < PUBLISH id=1 qos=1 msg=p:1:t/a:1
			s#1 < PUBLISH id=2 qos=1 msg=p:1:t/a:3
			s#1 < PUBLISH id=3 qos=1 msg=p:1:t/a:2
			s#1 > PUBACK id=1
			s#1 > PUBACK id=2
			s#1 > PUBACK id=3`},
		{"redelivered in another order", "redelivery", "after a message that came later", reconnected + `
			s#2 < PUBLISH id=1 qos=1 dup msg=p:1:t/a:1
			s#2 < PUBLISH id=3 qos=1 dup msg=p:1:t/a:3
			s#2 < PUBLISH id=2 qos=1 dup msg=p:1:t/a:2`},
		{"redelivered without DUP", "redelivery", "without DUP", reconnected + `
			s#2 < PUBLISH id=1 qos=1 msg=p:1:t/a:1
			s#2 < PUBLISH id=2 qos=1 dup msg=p:1:t/a:2
			s#2 < PUBLISH id=3 qos=1 dup msg=p:1:t/a:3`},
		{"redelivered under new identifiers", "identifier", "new identifier 4", reconnected + `
			s#2 < PUBLISH id=4 qos=1 dup msg=p:1:t/a:1
			s#2 < PUBLISH id=5 qos=1 dup msg=p:1:t/a:2
			s#2 < PUBLISH id=6 qos=1 dup msg=p:1:t/a:3`},
		{"redelivered under each other's identifiers", "identifier", "belongs to p:1:t/a:1", reconnected + `
			s#2 < PUBLISH id=1 qos=1 dup msg=p:1:t/a:2
			s#2 < PUBLISH id=2 qos=1 dup msg=p:1:t/a:1
			s#2 < PUBLISH id=3 qos=1 dup msg=p:1:t/a:3`},
		{"not redelivered", "redelivery", "was not sent again", reconnected + `
			s#2 < PUBLISH id=1 qos=1 dup msg=p:1:t/a:1
			s#2 > PUBACK id=1
			s#2 < PUBLISH id=2 qos=1 dup msg=p:1:t/a:2
			s#2 > PUBACK id=2`},
		{"newer before the redelivery", "redelivery", "before p:1:t/a:1", subscribed + `
			p#1 > PUBLISH id=1 qos=1 msg=p:1:t/a:1
			p#1 < PUBACK id=1
			s#1 < PUBLISH id=1 qos=1 msg=p:1:t/a:1
			s#1 < END
			p#1 > PUBLISH id=1 qos=1 msg=p:1:t/a:2
			p#1 < PUBACK id=1
			s#2 > CONNECT expiry=4294967295
			s#2 < CONNACK present
			s#2 < PUBLISH id=2 qos=1 msg=p:1:t/a:2
			s#2 < PUBLISH id=1 qos=1 dup msg=p:1:t/a:1`},
		{"sent again within a connection", "redelivery", "did not change", acknowledged3 + `
			s#1 < PUBLISH id=1 qos=1 msg=p:1:t/a:1
			s#1 < PUBLISH id=1 qos=1 dup msg=p:1:t/a:1
			s#1 < PUBLISH id=2 qos=1 msg=p:1:t/a:2
			s#1 < PUBLISH id=3 qos=1 msg=p:1:t/a:3`},
		{"identifier given away while in use", "identifier", "belongs to", acknowledged3 + `
			s#1 < PUBLISH id=1 qos=1 msg=p:1:t/a:1
			s#1 < PUBLISH id=1 qos=1 msg=p:1:t/a:2
			s#1 < PUBLISH id=2 qos=1 msg=p:1:t/a:3`},
		{"DUP on a first delivery", "redelivery", "after this connection began", acknowledged3 + `
			s#1 < PUBLISH id=1 qos=1 dup msg=p:1:t/a:1
			s#1 < PUBLISH id=2 qos=1 msg=p:1:t/a:2
			s#1 < PUBLISH id=3 qos=1 msg=p:1:t/a:3`},
		{"PUBREC never answered", "redelivery", "never answered by PUBREL", completed + `
			s#1 < PUBLISH id=1 qos=2 msg=p:2:t/a:1
			s#1 > PUBREC id=1`},
		{"PUBREL before PUBREC", "acknowledgement", "before its PUBREC", completed + `
			s#1 < PUBLISH id=1 qos=2 msg=p:2:t/a:1
			s#1 < PUBREL id=1
			s#1 > PUBREC id=1
			s#1 < PUBREL id=1
			s#1 > PUBCOMP id=1`},
		{"PUBREL from nowhere", "acknowledgement", "no QoS 2 delivery", subscribed + `
			s#1 < PUBREL id=9`},

		{"PUBACK for an unknown identifier", "acknowledgement", "not in use", subscribed + `
			p#1 < PUBACK id=5`},
		{"PUBACK for QoS 2", "acknowledgement", "answers a QoS 2", subscribed + `
			p#1 > PUBLISH id=1 qos=2 msg=p:2:t/a:1
			p#1 < PUBACK id=1`},
		{"PUBCOMP before PUBREL", "acknowledgement", "PUBREL was not sent", subscribed + `
			p#1 > PUBLISH id=1 qos=2 msg=p:2:t/a:1
			p#1 < PUBREC id=1
			p#1 < PUBCOMP id=1`},
		{"PUBACKs out of order", "acknowledgement", "overtook", subscribed + `
			p#1 > PUBLISH id=1 qos=1 msg=p:1:t/a:1
			p#1 > PUBLISH id=2 qos=1 msg=p:1:t/a:2
			p#1 < PUBACK id=2
			p#1 < PUBACK id=1`},

		{"session gone after a kill", "session", "session present is 0", subscribed + `
			- KILL
			s#1 < END
			s#2 > CONNECT expiry=4294967295
			s#2 < CONNACK`},
		{"clean start, session present", "session", "clean start", subscribed + `
			s#1 < END
			s#2 > CONNECT clean expiry=4294967295
			s#2 < CONNACK present`},
		{"session present out of nothing", "session", "never was", `
			s#1 > CONNECT expiry=100
			s#1 < CONNACK present`},
		{"session outlives its expiry", "session", "ended", `
			e#1 > CONNECT expiry=2
			e#1 < CONNACK
			at=100 e#1 < END
			at=9000 e#2 > CONNECT expiry=2
			e#2 < CONNACK present`},
		{"session expires too early", "session", "is gone", `
			e#1 > CONNECT expiry=5
			e#1 < CONNACK
			at=100 e#1 < END
			at=2000 e#2 > CONNECT expiry=5
			e#2 < CONNACK`},
		{"CONNECT refused", "session", "refused", `
			e#1 > CONNECT expiry=5
			e#1 < CONNACK code=0x87`},

		{"SUBACK grants less", "suback", "asked for QoS 2", `
			s#1 > CONNECT expiry=100
			s#1 < CONNACK
			s#1 > SUBSCRIBE id=1 qos=2 filter=t/#
			s#1 < SUBACK id=1 code=1 filter=t/#`},
		{"SUBACK nobody asked for", "suback", "not asked for", `
			s#1 > CONNECT expiry=100
			s#1 < CONNACK
			s#1 < SUBACK id=1 code=1 filter=t/#`},
		{"SUBACK never came", "stuck", "never acknowledged", `
			s#1 > CONNECT expiry=100
			s#1 < CONNACK
			s#1 > SUBSCRIBE id=1 qos=2 filter=t/#`},
		{"UNSUBACK says there was none", "subscription", "was in force", subscribed + `
			s#1 > UNSUBSCRIBE id=2 filter=t/#
			s#1 < UNSUBACK id=2 code=0x11 filter=t/#`},
		{"published after UNSUBACK", "subscription", "no subscription", subscribed + `
			s#1 > UNSUBSCRIBE id=2 filter=t/#
			s#1 < UNSUBACK id=2 filter=t/#
			p#1 > PUBLISH id=1 qos=1 msg=p:1:t/a:1
			s#1 < PUBLISH id=1 qos=1 msg=p:1:t/a:1
			p#1 < PUBACK id=1`},
		{"published while unsubscribed, delivered after the next SUBSCRIBE", "subscription", "no subscription", subscribed + `
			s#1 > UNSUBSCRIBE id=2 filter=t/#
			s#1 < UNSUBACK id=2 filter=t/#
			p#1 > PUBLISH id=1 qos=1 msg=p:1:t/a:1
			p#1 < PUBACK id=1
			s#1 > SUBSCRIBE id=2 qos=2 filter=t/#
			s#1 < SUBACK id=2 code=2 filter=t/#
			s#1 < PUBLISH id=1 qos=1 msg=p:1:t/a:1`},
		{"published before a clean start", "subscription", "no subscription", subscribed + `
			s#1 < END
			p#1 > PUBLISH id=1 qos=1 msg=p:1:t/a:1
			p#1 < PUBACK id=1
			s#2 > CONNECT clean expiry=4294967295
			s#2 < CONNACK
			s#2 > SUBSCRIBE id=1 qos=2 filter=t/#
			s#2 < SUBACK id=1 code=2 filter=t/#
			s#2 < PUBLISH id=1 qos=1 msg=p:1:t/a:1`},
		{"delivered at another QoS", "qos", "says 1", subscribed + `
			p#1 > PUBLISH id=1 qos=1 msg=p:1:t/a:1
			p#1 < PUBACK id=1
			s#1 < PUBLISH qos=0 msg=p:1:t/a:1`},
		{"delivered, never published", "payload", "never published", subscribed + `
			s#1 < PUBLISH id=1 qos=1 msg=p:1:t/a:1`},

		{"more in flight than the receive maximum", "quota", "the receive maximum is 2", `
			p#1 > CONNECT expiry=4294967295
			p#1 < CONNACK
			s#1 > CONNECT expiry=4294967295 max=2
			s#1 < CONNACK
			s#1 > SUBSCRIBE id=1 qos=2 filter=t/#
			s#1 < SUBACK id=1 code=2 filter=t/#
			p#1 > PUBLISH id=1 qos=2 msg=p:2:t/a:1
			p#1 > PUBLISH id=2 qos=2 msg=p:2:t/a:2
			p#1 > PUBLISH id=3 qos=2 msg=p:2:t/a:3
			s#1 < PUBLISH id=1 qos=2 msg=p:2:t/a:1
			s#1 < PUBLISH id=2 qos=2 msg=p:2:t/a:2
			s#1 > PUBREC id=1
			s#1 < PUBREL id=1
			s#1 < PUBLISH id=3 qos=2 msg=p:2:t/a:3`},

		{"older than acknowledged", "retained", "older than the acknowledged 2", retained2 + `
			r#1 < PUBLISH id=1 qos=1 retain msg=p:1:r/a:1`},
		{"empty although acknowledged", "retained", "is empty", retained2 + `
			r#1 < READ filter=r/#`},
		{"from the future", "retained", "never sent", retained2 + `
			r#1 < PUBLISH id=1 qos=1 retain msg=p:1:r/a:3`},
		{"stale value after a newer live one", "retained-order", "after the newer number 3", retained2 + `
			p#1 > PUBLISH id=1 qos=1 retain msg=p:1:r/a:3
			r#1 < PUBLISH id=1 qos=1 msg=p:1:r/a:3
			r#1 < PUBLISH id=2 qos=1 retain msg=p:1:r/a:2`},
		{"will not published", "lost", "w:1:t/w:1, acknowledged", subscribed + `
			w#1 > CONNECT expiry=4294967295 msg=w:1:t/w:1
			w#1 < CONNACK
			w#1 < END
			w#2 > CONNECT expiry=4294967295 msg=w:1:t/w:2
			w#2 < CONNACK present`},
		{"will published after DISCONNECT", "will", "DISCONNECT had been read", subscribed + `
			w#1 > CONNECT expiry=4294967295 msg=w:1:t/w:1
			w#1 < CONNACK
			w#1 > DISCONNECT
			w#1 < END graceful
			s#1 < PUBLISH id=1 qos=1 msg=w:1:t/w:1`},
		{"will published twice", "duplicate-qos2", "delivered twice", subscribed + `
			w#1 > CONNECT expiry=4294967295 msg=w:2:t/w:1
			w#1 < CONNACK
			- KILL
			w#1 < END
			s#1 < PUBLISH id=1 qos=2 msg=w:2:t/w:1
			s#1 < PUBLISH id=2 qos=2 msg=w:2:t/w:1`},
		{"removed, but there", "retained", "older than the acknowledged 3", `
			p#1 > CONNECT expiry=4294967295
			p#1 < CONNACK
			p#1 > PUBLISH id=1 qos=1 retain msg=p:1:r/a:1
			p#1 > PUBLISH id=2 qos=1 retain msg=p:1:r/a:2
			p#1 > PUBLISH id=3 qos=1 retain clear msg=p:1:r/a:3
			p#1 < PUBACK id=1
			p#1 < PUBACK id=2
			p#1 < PUBACK id=3
			r#1 > CONNECT clean
			r#1 < CONNACK
			r#1 > SUBSCRIBE id=1 qos=1 filter=r/#
			r#1 < SUBACK id=1 code=1 filter=r/#
			r#1 < PUBLISH id=1 qos=1 retain msg=p:1:r/a:2`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := judge(t, tc.history)
			found, _ := c.Findings()
			for i := range found {
				if found[i].Rule == tc.rule && strings.Contains(found[i].Text, tc.text) {
					return
				}
			}
			t.Errorf("want a finding %q with %q, found:", tc.rule, tc.text)
			for i := range found {
				t.Log(found[i].String())
			}
		})
	}
}

// reconnected: three messages came, none was acknowledged, the broker died.
const reconnected = acknowledged3 + `
s#1 < PUBLISH id=1 qos=1 msg=p:1:t/a:1
s#1 < PUBLISH id=2 qos=1 msg=p:1:t/a:2
s#1 < PUBLISH id=3 qos=1 msg=p:1:t/a:3
- KILL
s#1 < END
- READY
s#2 > CONNECT expiry=4294967295
s#2 < CONNACK present
`

// A kill is a possible cause of a QoS 1 duplicate, an orderly end is not.
func TestKillExcusesQoS1Duplicate(t *testing.T) {
	history := func(end string) string {
		return acknowledged3 + `
			s#1 < PUBLISH id=1 qos=1 msg=p:1:t/a:1
			s#1 < PUBLISH id=2 qos=1 msg=p:1:t/a:2
			s#1 < PUBLISH id=3 qos=1 msg=p:1:t/a:3
			s#1 > PUBACK id=1
			s#1 > PUBACK id=2
			s#1 > PUBACK id=3
			s#1 > DISCONNECT
			s#1 < END graceful
			` + end + `
			s#2 > CONNECT expiry=4294967295
			s#2 < CONNACK present
			s#2 < PUBLISH id=3 qos=1 dup msg=p:1:t/a:3
			s#2 > PUBACK id=3`
	}
	if got := rules(judge(t, history("- KILL"))); len(got) != 0 {
		t.Errorf("after a kill: %q", got)
	}
	if got := rules(judge(t, history("- STOP"))); len(got) != 1 || got[0] != "duplicate-qos1" {
		t.Errorf("after an orderly stop: %q", got)
	}
}

// Memory is bounded by what is owed, not by the length of the history.
// An orderly end shows that the broker has read what was sent on that
// connection, not an answer of an earlier one that a kill may have taken.
func TestGracefulEndVouchesForItsConnection(t *testing.T) {
	twice := completed + `
s#1 < PUBLISH id=1 qos=2 msg=p:2:t/a:1
s#1 > PUBREC id=1
- KILL
- READY
s#2 > CONNECT expiry=4294967295
s#2 < CONNACK present
s#2 < PUBLISH id=1 qos=2 dup msg=p:2:t/a:1
%s
s#2 > DISCONNECT
s#2 < END graceful
s#3 > CONNECT expiry=4294967295
s#3 < CONNACK present
s#3 < PUBLISH id=1 qos=2 dup msg=p:2:t/a:1
s#3 > PUBREC id=1
s#3 < PUBREL id=1
s#3 > PUBCOMP id=1`
	if got := rules(judge(t, fmt.Sprintf(twice, ""))); len(got) != 0 {
		t.Errorf("not answered on the second connection: %v", got)
	}
	if got := rules(judge(t, fmt.Sprintf(twice, "s#2 > PUBREC id=1"))); !slices.Equal(got, []string{"redelivery"}) {
		t.Errorf("answered on the second connection: %v", got)
	}
}

func TestCheckerForgetsSettledMessages(t *testing.T) {
	c := NewChecker()
	var tick uint64
	see := func(e Event) {
		tick++
		e.Tick = tick
		c.Observe(&e)
	}
	for _, name := range []string{"p", "s"} {
		see(Event{Client: name, Conn: 1, Kind: Connect, Sent: true, Expiry: NeverExpires})
		see(Event{Client: name, Conn: 1, Kind: Connack})
	}
	see(Event{Client: "s", Conn: 1, Kind: Subscribe, Sent: true, ID: 1, QoS: 1, Filter: "t"})
	see(Event{Client: "s", Conn: 1, Kind: Suback, ID: 1, Code: 1, Filter: "t"})
	for seq := uint32(1); seq <= 100_000; seq++ {
		msg := Message{Stream{"p", "t", 1}, seq}
		see(Event{Client: "p", Conn: 1, Kind: Publish, Sent: true, QoS: 1, ID: 1, Msg: msg})
		see(Event{Client: "p", Conn: 1, Kind: Puback, ID: 1})
		see(Event{Client: "s", Conn: 1, Kind: Publish, QoS: 1, ID: 1, Msg: msg})
		see(Event{Client: "s", Conn: 1, Kind: Puback, Sent: true, ID: 1})
	}
	s := c.streams[Stream{"p", "t", 1}]
	if len(s.msgs) > 4*keepSettled {
		t.Errorf("%d messages kept", len(s.msgs))
	}
	if n := len(c.peers["s"].seen[s.Stream].spans); n != 1 {
		t.Errorf("%d spans", n)
	}
	if got := rules(c); len(got) != 0 {
		t.Errorf("findings %q", got)
	}
}
