package recovery_test

import (
	"context"
	"fmt"
	"os"

	"github.com/wind-c/comqtt/v3/broker/core"
	"github.com/wind-c/comqtt/v3/broker/packets"
	"github.com/wind-c/comqtt/v3/recovery"
	"github.com/wind-c/comqtt/v3/wal"
	"github.com/wind-c/comqtt/v3/wal/record"
)

// The life of a retained message: logged, applied, brought to the backend, and
// there after a restart.
func Example() {
	dir, err := os.MkdirTemp("", "recovery")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir) //nolint:errcheck // an example
	ctx := context.Background()
	options := recovery.Options{Dir: dir}

	s, err := recovery.Open(ctx, options)
	if err != nil {
		panic(err)
	}
	fmt.Println(s.Report.String())

	p := packets.Publish{Payload: []byte("21.5")}
	rec := record.Publish{Retain: true, Message: p.AppendMessage(nil, []byte("room/temperature"))}
	f := wal.Frame{Count: 1, Time: s.Report.LogTime, Term: 1, Body: wal.AppendRecord(nil, rec.AppendTo(nil))}
	if err := s.Log.Commit(&f); err != nil { // durable from here on
		panic(err)
	}
	s.Bodies.AddFrame(&f, nil)
	var fx core.Effects
	err = f.Records(func(index uint64, rec []byte) error { return s.Machine.Apply(index, f.Time, rec, &fx) })
	if err != nil {
		panic(err)
	}
	s.Compactor.Checkpoint(s.Machine, s.Machine.Applied(), s.Machine.Now())
	if err := s.Close(ctx); err != nil {
		panic(err)
	}

	s, err = recovery.Open(ctx, options)
	if err != nil {
		panic(err)
	}
	fmt.Println("replayed:", s.Report.Records, "retained:", s.Report.Retained, "clean:", s.Report.Clean)
	err = s.Bodies.Load(ctx, []uint64{f.First}, func(_ int, msg []byte) error {
		m, err := packets.ParseMessage(msg)
		fmt.Printf("%s = %s\n", m.Topic, m.Payload)
		return err
	})
	if err != nil {
		panic(err)
	}
	if err := s.Close(ctx); err != nil {
		panic(err)
	}
	// Output:
	// new store
	// replayed: 0 retained: 1 clean: true
	// room/temperature = 21.5
}
