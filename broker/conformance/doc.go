// Package conformance proves the broker against the MQTT specifications,
// statement by statement.
//
// It has no code but tests. A test starts a real broker.Server on a temporary
// directory, speaks to it over a socket with a client of its own, and names
// the statements it proves in a line of its comment:
//
//	// Proves 5.0 [MQTT-3.3.1-5] [MQTT-3.3.1-8]; 3.1.1 [MQTT-3.3.1-5] [MQTT-3.3.1-12].
//	func TestRetain_MQTT_3_3_1_5_Replaces(t *testing.T) { … }
//
// The statements themselves stand in statements5_test.go and
// statements311_test.go: every one of the two documents, in our own words, with
// those that bind only a client marked as such and those that cannot be tested
// given a reason. TestDocument brings both together into docs/conformance.md
// and fails when that file is stale:
//
//	go test ./broker/conformance -run TestDocument -update
//
// # The client
//
// The client says anything, well-formed or not: packets from package packets
// or plain bytes. It is strict about what it hears. Each packet of the broker
// is decoded with every rule that one packet can break, and held against what
// the connection has agreed on: maximum packet size, receive maximum, topic
// aliases, identifiers in use, answers that were not asked for, DUP and RETAIN,
// properties that were not wanted, anything after a DISCONNECT. A violation
// fails the test that met it, whatever the test was about.
//
// # Time and order
//
// Nothing sleeps to wait for the broker. That something was not sent is shown
// by sending something else that travels the same way and must arrive next
// (client.quiet). Where a statement is about time, intervals of one second are
// used and tests run in parallel; the whole package takes well under a minute
// on two cores.
package conformance
