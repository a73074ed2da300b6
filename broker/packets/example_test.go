package packets_test

import (
	"fmt"

	"github.com/wind-c/comqtt/v3/broker/packets"
)

// A read buffer with two packets, and what is left of it.
func ExampleNext() {
	buf := []byte("\x30\x07\x00\x03a/bhi\xc0\x00\x40")
	var publish packets.Publish
	for {
		f, n, _, err := packets.Next(buf, 1<<20)
		if err != nil || n == 0 {
			break
		}
		switch f.Type() {
		case packets.TypePublish:
			err = publish.Decode(packets.V311, f.Flags(), f.Body)
			fmt.Printf("%s %s %v\n", publish.Topic, publish.Payload, err)
		default:
			fmt.Println(f.Type())
		}
		buf = buf[n:]
	}
	fmt.Printf("rest %x\n", buf)
	// Output:
	// a/b hi <nil>
	// PINGREQ
	// rest 40
}

// A message is stored once and sent to two subscribers.
func ExampleDelivery() {
	publish := packets.Publish{Topic: []byte("a/b"), Payload: []byte("hi")}
	message, err := packets.ParseMessage(publish.AppendMessage(nil, nil))
	if err != nil {
		panic(err)
	}
	old := packets.Delivery{Version: packets.V311}
	fmt.Printf("%x\n", old.AppendTo(nil, &message))
	modern := packets.Delivery{Version: packets.V5, QoS: 1, PacketID: 7, HasExpiry: true, Expiry: 60}
	fmt.Printf("%x\n", modern.AppendTo(nil, &message))
	// Output:
	// 30070003612f626869
	// 320f0003612f62000705020000003c6869
}
