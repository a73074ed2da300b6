package bench

import (
	"testing"
	"time"
)

// The benchmarks of this file run the real binary as a process of its own and
// report what a message costs it. ns/op is not of interest: generator and
// broker share the machine.

func benchmarkEndToEnd(b *testing.B, o Options) {
	dir := b.TempDir()
	broker, err := NewBroker(comqttCommand(b), dir)
	if err != nil {
		b.Fatal(err)
	}
	defer func() {
		if err := broker.Close(); err != nil {
			b.Error(err)
		}
	}()
	if o.PID, o.Target, err = broker.Start(); err != nil {
		b.Fatal(err)
	}
	if err := broker.Ready(b.Context()); err != nil {
		b.Fatal(err)
	}
	o.Keep = true
	if o.Mode != Idle {
		o.Messages = b.N
	}
	b.ResetTimer()
	r, err := Run(b.Context(), o)
	b.StopTimer()
	if err != nil {
		b.Fatal(err)
	}
	if err := r.Err(); err != nil {
		b.Fatal(err)
	}
	for name, unit := range map[string]string{MetricRate: "msg/s", MetricCPU: "us-cpu/msg", MetricSelf: "us-generator/msg", "memory": "bytes/conn"} {
		if m, ok := r.Get(name); ok {
			b.ReportMetric(m.Value, unit)
		}
	}
}

func endToEnd(m Mode, qos byte) Options {
	o, _ := Defaults(m)
	o.QoS = qos
	return o
}

func BenchmarkEndToEndQoS0Pairs50(b *testing.B)        { benchmarkEndToEnd(b, endToEnd(Pairs, 0)) }
func BenchmarkEndToEndQoS1Pairs50(b *testing.B)        { benchmarkEndToEnd(b, endToEnd(Pairs, 1)) }
func BenchmarkEndToEndQoS2Pairs50(b *testing.B)        { benchmarkEndToEnd(b, endToEnd(Pairs, 2)) }
func BenchmarkEndToEndDurableQoS1Pairs50(b *testing.B) { benchmarkEndToEnd(b, endToEnd(Durable, 1)) }

// BenchmarkIdleConnections weighs connections; -benchtime has no say in it.
func BenchmarkIdleConnections(b *testing.B) {
	o, _ := Defaults(Idle)
	o.Connections = 2000
	o.waits.settle = time.Second
	benchmarkEndToEnd(b, o)
}
