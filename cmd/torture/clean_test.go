package main

import "testing"

// Histories that break no promise, some of which look as if they did.
func TestCleanHistoriesPass(t *testing.T) {
	for name, history := range map[string]string{
		"QoS 1 and 2, both ways": subscribed + `
			p#1 > PUBLISH id=1 qos=1 msg=p:1:t/a:1
			p#1 > PUBLISH id=2 qos=2 msg=p:2:t/a:1
			p#1 < PUBACK id=1
			s#1 < PUBLISH id=1 qos=1 msg=p:1:t/a:1
			p#1 < PUBREC id=2
			p#1 > PUBREL id=2
			s#1 > PUBACK id=1
			s#1 < PUBLISH id=2 qos=2 msg=p:2:t/a:1
			s#1 > PUBREC id=2
			p#1 < PUBCOMP id=2
			s#1 < PUBREL id=2
			s#1 > PUBCOMP id=2`,
		"kill, both sides resend [MQTT-4.4.0-1]": subscribed + `
			p#1 > PUBLISH id=1 qos=1 msg=p:1:t/a:1
			p#1 > PUBLISH id=2 qos=1 msg=p:1:t/a:2
			p#1 > PUBLISH id=3 qos=2 msg=p:2:t/a:1
			s#1 < PUBLISH id=1 qos=1 msg=p:1:t/a:1
			s#1 < PUBLISH id=2 qos=1 msg=p:1:t/a:2
			s#1 < PUBLISH id=3 qos=2 msg=p:2:t/a:1
			s#1 > PUBACK id=1
			s#1 > PUBREC id=3
			- KILL
			p#1 < END
			s#1 < END
			- READY
			p#2 > CONNECT expiry=4294967295
			p#2 < CONNACK present
			p#2 > PUBLISH id=1 qos=1 dup msg=p:1:t/a:1
			p#2 > PUBLISH id=2 qos=1 dup msg=p:1:t/a:2
			p#2 > PUBLISH id=3 qos=2 dup msg=p:2:t/a:1
			p#2 < PUBACK id=1
			p#2 < PUBACK id=2
			p#2 < PUBREC id=3
			p#2 > PUBREL id=3
			p#2 < PUBCOMP id=3
			s#2 > CONNECT expiry=4294967295
			s#2 < CONNACK present
			s#2 < PUBLISH id=1 qos=1 dup msg=p:1:t/a:1
			s#2 < PUBLISH id=2 qos=1 dup msg=p:1:t/a:2
			s#2 < PUBLISH id=3 qos=2 dup msg=p:2:t/a:1
			s#2 < PUBLISH id=4 qos=1 msg=p:1:t/a:1
			s#2 < PUBLISH id=5 qos=1 msg=p:1:t/a:2
			s#2 > PUBACK id=1
			s#2 > PUBACK id=2
			s#2 > PUBREC id=3
			s#2 > PUBACK id=4
			s#2 > PUBACK id=5
			s#2 < PUBREL id=3
			s#2 > PUBCOMP id=3`,
		"lost PUBCOMP: PUBREL comes again": subscribed + `
			p#1 > PUBLISH id=1 qos=2 msg=p:2:t/a:1
			p#1 < PUBREC id=1
			p#1 > PUBREL id=1
			p#1 < PUBCOMP id=1
			s#1 < PUBLISH id=1 qos=2 msg=p:2:t/a:1
			s#1 > PUBREC id=1
			s#1 < PUBREL id=1
			s#1 > PUBCOMP id=1
			s#1 < END
			s#2 > CONNECT expiry=4294967295
			s#2 < CONNACK present
			s#2 < PUBREL id=1
			s#2 > PUBCOMP id=1`,
		"offline queue": subscribed + `
			s#1 > DISCONNECT
			s#1 < END graceful
			p#1 > PUBLISH id=1 qos=1 msg=p:1:t/a:1
			p#1 < PUBACK id=1
			s#2 > CONNECT expiry=4294967295
			s#2 < CONNACK present
			s#2 < PUBLISH id=9 qos=1 msg=p:1:t/a:1
			s#2 > PUBACK id=9`,
		"unsubscribed: nothing owed, the queue may still come [MQTT-3.10.4-3]": subscribed + `
			p#1 > PUBLISH id=1 qos=1 msg=p:1:t/a:1
			p#1 > PUBLISH id=2 qos=1 msg=p:1:t/a:2
			p#1 < PUBACK id=1
			p#1 < PUBACK id=2
			s#1 > UNSUBSCRIBE id=2 filter=t/#
			s#1 < PUBLISH id=1 qos=1 msg=p:1:t/a:1
			s#1 > PUBACK id=1
			s#1 < UNSUBACK id=2 filter=t/#
			p#1 > PUBLISH id=1 qos=1 msg=p:1:t/a:3
			p#1 < PUBACK id=1
			s#1 > SUBSCRIBE id=2 qos=2 filter=t/#
			s#1 < SUBACK id=2 code=2 filter=t/#
			p#1 > PUBLISH id=1 qos=1 msg=p:1:t/a:4
			p#1 < PUBACK id=1
			s#1 < PUBLISH id=1 qos=1 msg=p:1:t/a:4
			s#1 > PUBACK id=1`,
		"refused: nothing owed": subscribed + `
			p#1 > PUBLISH id=1 qos=1 msg=p:1:t/a:1
			p#1 < PUBACK id=1 code=0x97`,
		"clean start ends what is owed": subscribed + `
			s#1 < END
			p#1 > PUBLISH id=1 qos=1 msg=p:1:t/a:1
			p#1 < PUBACK id=1
			s#2 > CONNECT clean expiry=4294967295
			s#2 < CONNACK`,
		"session expires": `
			e#1 > CONNECT expiry=2
			at=10 e#1 < CONNACK
			at=20 e#1 < END
			at=1000 e#2 > CONNECT expiry=2
			e#2 < CONNACK present
			at=1100 e#2 < END
			at=6000 e#3 > CONNECT expiry=2
			e#3 < CONNACK`,
		"a session that ended with its connection, a CONNECT without answer begins a new one": subscribed + `
			s#1 > DISCONNECT
			s#1 < END graceful
			s#2 > CONNECT clean expiry=0
			s#2 < CONNACK
			s#2 > SUBSCRIBE id=1 qos=2 filter=t/#
			s#2 < SUBACK id=1 code=2 filter=t/#
			p#1 > PUBLISH id=1 qos=1 msg=p:1:t/a:1
			p#1 < PUBACK id=1
			s#2 < PUBLISH id=7 qos=1 msg=p:1:t/a:1
			s#2 > DISCONNECT
			s#2 < END graceful
			s#3 > CONNECT expiry=4294967295
			- KILL
			p#1 < END
			s#3 < END
			- READY
			s#4 > CONNECT expiry=4294967295
			s#4 < CONNACK present`,
		"a session that a crash has prolonged, resumed before anybody else has noticed the restart": `
			e#1 > CONNECT expiry=2
			e#1 < CONNACK
			at=100 e#1 < END
			at=2500 - KILL
			at=4000 e#2 > CONNECT expiry=2
			at=5000 e#2 < CONNACK present
			at=5001 - READY`,
		"session expires, a CONNECT without answer begins a new one": `
			p#1 > CONNECT expiry=4294967295
			p#1 < CONNACK
			e#1 > CONNECT expiry=2
			e#1 < CONNACK
			e#1 > SUBSCRIBE id=1 qos=1 filter=t/#
			e#1 < SUBACK id=1 code=1 filter=t/#
			p#1 > PUBLISH id=1 qos=1 msg=p:1:t/a:1
			p#1 < PUBACK id=1
			e#1 < PUBLISH id=1 qos=1 msg=p:1:t/a:1
			at=100 e#1 < END
			p#1 > PUBLISH id=1 qos=1 msg=p:1:t/a:2
			p#1 < PUBACK id=1
			at=4000 e#2 > CONNECT expiry=2
			- KILL
			e#2 < END
			at=4100 - READY
			e#3 > CONNECT expiry=2
			e#3 < CONNACK present
			p#1 > PUBLISH id=1 qos=1 msg=p:1:t/a:3
			p#1 < PUBACK id=1
			e#3 > SUBSCRIBE id=1 qos=1 filter=t/#
			e#3 < SUBACK id=1 code=1 filter=t/#
			p#1 > PUBLISH id=1 qos=1 msg=p:1:t/a:4
			e#3 < PUBLISH id=1 qos=1 msg=p:1:t/a:4
			p#1 < PUBACK id=1
			e#3 > PUBACK id=1`,
		"retained value and removal": `
			p#1 > CONNECT expiry=4294967295
			p#1 < CONNACK
			p#1 > PUBLISH id=1 qos=1 retain msg=p:1:r/a:1
			p#1 < PUBACK id=1
			r#1 > CONNECT clean
			r#1 < CONNACK
			r#1 > SUBSCRIBE id=1 qos=1 filter=r/#
			p#1 > PUBLISH id=1 qos=1 retain msg=p:1:r/a:2
			r#1 < SUBACK id=1 code=1 filter=r/#
			r#1 < PUBLISH id=1 qos=1 retain msg=p:1:r/a:1
			r#1 < READ filter=r/#
			p#1 < PUBACK id=1
			p#1 > PUBLISH id=1 qos=1 retain clear msg=p:1:r/a:3
			p#1 < PUBACK id=1
			r#1 < END
			r#2 > CONNECT clean
			r#2 < CONNACK
			r#2 > SUBSCRIBE id=1 qos=1 filter=r/#
			r#2 < SUBACK id=1 code=1 filter=r/#
			r#2 < READ filter=r/#`,
		"subscribed between two publishes that are then sent again": `
			p#1 > CONNECT expiry=4294967295
			p#1 < CONNACK
			p#1 > PUBLISH id=1 qos=1 msg=p:1:t/a:1
			p#1 > PUBLISH id=2 qos=1 msg=p:1:t/a:2
			s#1 > CONNECT expiry=4294967295
			s#1 < CONNACK
			s#1 > SUBSCRIBE id=1 qos=1 filter=t/#
			s#1 < SUBACK id=1 code=1 filter=t/#
			s#1 < PUBLISH id=1 qos=1 msg=p:1:t/a:2
			p#1 < END
			p#2 > CONNECT expiry=4294967295
			p#2 < CONNACK present
			p#2 > PUBLISH id=1 qos=1 dup msg=p:1:t/a:1
			p#2 > PUBLISH id=2 qos=1 dup msg=p:1:t/a:2
			p#2 < PUBACK id=1
			p#2 < PUBACK id=2
			s#1 < PUBLISH id=2 qos=1 msg=p:1:t/a:1
			s#1 < PUBLISH id=3 qos=1 msg=p:1:t/a:2
			s#1 > PUBACK id=1
			s#1 > PUBACK id=2
			s#1 > PUBACK id=3`,
		"first copies, acknowledged in vain, come again before the second": subscribed + `
			p#1 > PUBLISH id=1 qos=1 msg=p:1:t/a:1
			p#1 > PUBLISH id=2 qos=1 msg=p:1:t/a:2
			p#1 < END
			p#2 > CONNECT expiry=4294967295
			p#2 < CONNACK present
			p#2 > PUBLISH id=1 qos=1 dup msg=p:1:t/a:1
			p#2 > PUBLISH id=2 qos=1 dup msg=p:1:t/a:2
			s#1 < PUBLISH id=1 qos=1 msg=p:1:t/a:1
			s#1 < PUBLISH id=2 qos=1 msg=p:1:t/a:2
			s#1 < PUBLISH id=3 qos=1 msg=p:1:t/a:1
			s#1 > PUBACK id=1
			s#1 > PUBACK id=2
			- KILL
			s#1 < END
			s#2 > CONNECT expiry=4294967295
			s#2 < CONNACK present
			s#2 < PUBLISH id=2 qos=1 dup msg=p:1:t/a:2
			s#2 < PUBLISH id=3 qos=1 dup msg=p:1:t/a:1
			s#2 < PUBLISH id=4 qos=1 dup msg=p:1:t/a:2
			s#2 > PUBACK id=2
			s#2 > PUBACK id=3
			s#2 > PUBACK id=4
			p#2 < PUBACK id=1
			p#2 < PUBACK id=2`,
		"wills": subscribed + `
			w#1 > CONNECT expiry=4294967295 msg=w:2:t/w:1
			w#1 < CONNACK
			w#1 < END
			s#1 < PUBLISH id=1 qos=2 msg=w:2:t/w:1
			w#2 > CONNECT expiry=4294967295 msg=w:2:t/w:2
			w#2 < CONNACK present
			w#2 > DISCONNECT
			w#2 < END graceful
			w#3 > CONNECT expiry=4294967295 msg=w:2:t/w:3
			w#3 < CONNACK present
			- KILL
			w#3 < END
			- READY
			w#4 > CONNECT expiry=4294967295 msg=w:2:t/w:4
			w#4 < CONNACK present
			w#5 > CONNECT expiry=4294967295 msg=w:2:t/w:5
			w#5 < CONNACK present
			s#1 < PUBLISH id=2 qos=2 msg=w:2:t/w:4
			s#1 > PUBREC id=1
			s#1 < PUBREL id=1
			s#1 > PUBCOMP id=1
			s#1 > PUBREC id=2
			s#1 < PUBREL id=2
			s#1 > PUBCOMP id=2`,
		"shared group: one of the members": shared + `
			p#1 > PUBLISH id=1 qos=2 msg=p:2:g/a:1
			p#1 > PUBLISH id=2 qos=2 msg=p:2:g/a:2
			p#1 < PUBREC id=1
			p#1 < PUBREC id=2
			p#1 > PUBREL id=1
			p#1 > PUBREL id=2
			p#1 < PUBCOMP id=1
			p#1 < PUBCOMP id=2
			b#1 < PUBLISH id=1 qos=2 msg=p:2:g/a:2
			a#1 < PUBLISH id=1 qos=2 msg=p:2:g/a:1
			a#1 > PUBREC id=1
			b#1 > PUBREC id=1
			a#1 < PUBREL id=1
			b#1 < PUBREL id=1
			a#1 > PUBCOMP id=1
			b#1 > PUBCOMP id=1`,
	} {
		t.Run(name, func(t *testing.T) {
			c := judge(t, history)
			found, _ := c.Findings()
			for i := range found {
				t.Error(found[i].String())
			}
			if o := c.Outstanding(); o.Owed != 0 {
				t.Errorf("outstanding after the end: %+v", o)
			}
		})
	}
}
