// Package bench is the load generator behind `comqtt bench`: it puts a
// measured, checked load on any MQTT broker and says what that cost.
//
// # Parts
//
//	Run ── measures one Options against one broker, gives one Result
//	 │
//	 ├─ conn        a connection: dial, CONNECT, SUBSCRIBE, blocking
//	 ├─ publisher   sends from prepared frames as far as window and group allow
//	 ├─ receiver    one goroutine per connection: parses, checks, acknowledges
//	 ├─ group       how many messages may be under way, end to end
//	 ├─ stream      what one receiver got of one source: lost, doubled, out of order
//	 └─ gauge       CPU time and memory of the broker's process and of this one
//
//	Compare ── reads a file of brokers and rows, starts each broker as a child
//	           for each run, interleaves the runs A B A B, takes medians and
//	           ratios, and writes them as a table or into a page of docs
//
//	Calibrate ── the same load against a relay that does nothing a broker has
//	           to do: what the generator itself costs
//
// # Load
//
// Throughput is measured in a closed loop with a bounded window: a message
// counts as under way until its acknowledgement (QoS 1 and 2) and its delivery
// are both here, and a publisher goes on when a quarter of its window is free.
// No broker is made to queue more than the window, so none has to drop.
//
// Latency is measured in an open loop: message k is due at start + k/rate,
// whatever became of message k-1, and its latency counts from when it was due.
// A broker that stalls for a second is charged with every message that was due
// in that second (no coordinated omission).
//
// # Frames
//
// A publisher's PUBLISH packets are encoded once, back to back. Before each
// write only sequence number and packet identifier are patched:
//
//	fixed header | topic | identifier (QoS>0) | 0 (v5) | payload
//	                                                     run u32 | source u32 | seq u64 | random bytes
//
// The receiver reads run, source and sequence number and nothing else, so the
// check of loss, duplicates and order is on in every run and costs a few
// nanoseconds. The random bytes keep a broker that compresses from looking
// better than it is.
//
// # Cost
//
// Broker and generator share the machine, so the generator's own cost decides
// whether a figure is about the broker. Nothing is allocated per message; the
// goroutine that reads a delivery or an acknowledgement writes the next batch
// itself. Every result carries the generator's CPU time per message beside the
// broker's.
//
// # Concurrency
//
// Each connection has one reading goroutine. Writes to a publisher's socket
// come from whoever finds the window open, one at a time (publisher.pump). All
// goroutines of a run have ended when Run returns.
package bench
