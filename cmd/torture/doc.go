// Command torture kills the broker, cuts its power and damages its files, and
// checks that it kept its promises. `make torture` runs it; `go test
// ./cmd/torture` runs a short one.
//
//	torture [-kills 100] [-seed S] [-log-engine tidwall|native]
//	        [-mode all|kill|failpoint|mixed|fsync|enospc|power|damage]
//	        [-sync always|100ms|never]    in mode power
//	torture -prove            every planted defect must be found (part of all)
//	torture -prove -lie NAME  one that is planted in the disk
//	torture -check FILE       judge a kept history again
//
// # Modes
//
//   - kill, failpoint, mixed: SIGKILL at random moments, at an acknowledgement, at
//     a failpoint; fsync: a sync fails; enospc: the disk is full.
//   - power: the data directory lies on a disk that loses what was not synced.
//   - damage: files are damaged while no broker runs.
//
// # What it does
//
//	      ┌─ publishers ──┐        ┌────────────┐
//	      │  subscribers  │  MQTT  │   comqtt   │ ← SIGKILL at random moments, at an
//	fleet │  members of a │ ─────► │ (failpoint │   acknowledgement, at a failpoint,
//	      │  shared group │        │   build)   │   then often a simulated power loss
//	      │  readers …    │        └────────────┘
//	      └──────┬────────┘
//	             │ every packet sent and received, in one true order
//	         journal ──► checker ──► findings, with the history that shows them
//
// The clients (client.go) are correct MQTT clients whose durable state lives in
// this process and so survives the broker: after a reconnect they send PUBLISH
// again with DUP and the old identifier, or PUBREL, in the old order. They speak
// 3.1, 3.1.1 and 5, keep a window open, answer late, break off, take their own
// connection over, stay away, change their subscriptions, start clean, let a
// session expire.
//
// The checker (checker.go, check_*.go) knows only what the clients were told.
// It is pure: the same history gives the same findings. It demands:
//
//   - lost: a message acknowledged by PUBACK or PUBREC reaches every durable
//     session (or shared group) whose subscription was acknowledged before the
//     message was first sent, unless that session gave it up;
//   - duplicate-qos2: never the same message twice to a session or group;
//   - duplicate-qos1: never more copies on one connection than the publisher
//     sent, and a redelivery only if the acknowledgement may have been lost;
//   - order: first deliveries of a publisher's messages to one topic at one QoS
//     in order; acknowledgements in order;
//   - redelivery, identifier: after a reconnect what is not acknowledged comes
//     again, with its identifier, with DUP, in the original order, before newer
//     messages, and at no other time;
//   - session: present when it must be, and only then (expiry, clean start);
//   - subscription, suback: in force from SUBACK to UNSUBSCRIBE, not in force
//     from UNSUBACK to SUBSCRIBE; granted as asked for;
//   - retained: never older than acknowledged, removed means removed;
//   - retained-order: not after a newer live message of the same topic;
//   - will: published once if the connection broke off, never after DISCONNECT;
//     a kill in between leaves it open, as the client may be back in time;
//   - quota, qos, payload, acknowledgement, protocol, stuck, process, refused:
//     what the names say.
//
// Its memory is bounded by what is owed, the journal by -history.
//
// # Power loss
//
// SIGKILL alone loses nothing, because the page cache survives it. In mode power
// (lossy.go) all files of the data directory, log, backend, manifest and archive,
// lie on a FUSE file system of this process, package powerfs. At a cut the disk
// stops, the process is killed, and of what was not synced is lost all, a random
// part, the end of the last write at a sector, the names but not the content, or
// the other way round; then the broker starts on the rest, under the same load
// and checker. Cuts come at any moment and at the k-th operation of the disk
// after one that begins a rotation, checkpoint, truncation, start, repair,
// shutdown …: see instants. Segments are small and checkpoints frequent then.
//
// With -sync 100ms or never, acknowledged messages may be lost, so another judge
// is needed (lazy.go): the broker starts, what is left is a prefix of what one
// publisher sent, and nothing is lost that was acknowledged before the last sync
// began, which with an interval is not longer ago than that.
//
// Where there is no FUSE the log alone is cut, as mode mixed does after half of
// its kills. A binary built with the tag failpoints keeps the number of bytes it
// has synced in the file that COMQTT_SYNCED_FILE names, one line
//
//	00000000000000004711 163840\n
//
// segment file name and durable bytes of it, written over with one pwrite after
// each sync and before anything that waits for the sync leaves. After a kill the
// torture cuts that segment somewhere between there and its end, may tear a
// sector, and removes newer segments (power.go). In a segment that was
// preallocated, what is cut off becomes zeros and the size stays.
//
// # Damage
//
// Three brokers write a store each: one is stopped, one killed in the quiet, one
// under load (damage_store.go). Then (damage.go) a file of the log, the backend,
// the manifest or the archive, or two, are changed in a copy: a bit, all eight of
// a byte in turn, a block of zeros, a truncation, a deletion, two exchanged, one
// copied over another or to a new name, one from another store. What starts must
// have everything: sessions, queues, subscriptions, retained messages and every
// body are compared. What does not must refuse with exit 65, say why, and change
// nothing. A flipped bit in a frame of the log must be noticed even if nothing is
// lost by it. Most starts happen in this process, hundreds a minute; every 25th
// is made by the real binary.
//
// # Proof
//
// A checker that finds nothing may be blind. So -prove runs the same campaign
// against every defect that a failpoints build can be told to have
// (COMQTT_FAULT, prove.go), cuts the power of disks that lie about a sync, as if
// the broker had forgotten it, and damages the log of a broker that ignores
// checksums; it fails unless each is found. The unit tests show
// it hand-written histories of every violation; and mosquitto serves as a broker
// that somebody else wrote: clean when stopped in order, caught when killed.
//
// # Reading a finding
//
// The program prints what was promised, the event that broke it, and the events
// that bear on it, and keeps the whole history (history.txt, which -check reads),
// the broker's log and its data. A transcript line reads
//
//	@51434 at=2590 s0#3 < PUBLISH id=2012 qos=2 msg=p0:2:t/a/1:310
//	 tick   ms     │  │ │                     publisher:QoS:topic:sequence number
//	          client  │ └ received (> sent)
//	                  └ its connection number
//
// One goroutine owns each client; the journal's mutex is all they share.
package main
