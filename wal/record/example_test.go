package record_test

import (
	"fmt"

	"github.com/wind-c/comqtt/v3/wal/record"
)

// A record is appended to a frame and decoded from it without a copy.
func Example() {
	frame := (&record.PubRel{Session: 42, Epoch: record.NewEpoch(1, 7), PacketID: 300}).AppendTo(nil)
	fmt.Printf("% x\n", frame)
	var p record.PubRel
	if err := p.Decode(frame); err != nil {
		panic(err)
	}
	fmt.Println(record.KindOf(frame), p.Session, p.Epoch.Boot(), p.Epoch.Connection(), p.PacketID)
	// Output:
	// 0b 01 2a 87 80 80 80 10 ac 02
	// pubrel 42 1 7 300
}
