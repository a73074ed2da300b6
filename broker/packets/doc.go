// Package packets is the MQTT codec: bytes to packets and packets to bytes,
// for MQTT 3.1, 3.1.1 and 5.0, in both directions. It does no I/O, keeps no
// state between packets and imports nothing of this module.
//
// # Decoding
//
// Next splits a read buffer into frames, and the Decode method of a packet
// struct reads a frame's body:
//
//	read buffer  30 0e 00 03 'a/b' 00 'payload' | 40 02 00 07 | 30 21 00 ...
//	             └──────── Next: n = 16 ────────┘ └─ n = 4 ─┘ └─ n = 0, need = 35
//	             │  └─ Frame.Body, aliases the buffer
//	             └─ Frame.Header: Type and Flags
//
//	for {
//		f, n, need, err := packets.Next(buf, limit)
//		if err != nil { ... } // an *Error: answer with its Code, then close
//		if n == 0 { ... }     // read more: need bytes in all, if not 0
//		switch f.Type() {
//		case packets.TypePublish:
//			err = publish.Decode(version, f.Flags(), f.Body)
//		...
//		}
//		buf = buf[n:]
//	}
//
// Decoding is strict. Whatever the specification demands of one packet by
// itself is checked: reserved bits, lengths, surplus bytes, text, the place,
// number and range of properties, reason codes. An Error names the reason code
// to answer with and the statement that was broken. What is not checked here
// is what takes more than the packet to know: the validity of wildcards in
// topic filters (session/topic), limits announced on the connection (Topic
// Alias Maximum, Maximum QoS ...), empty client identifiers, and who may send
// the packet. The last is CheckFromClient and CheckFromServer of Publish,
// Disconnect and Auth, the packets whose content depends on the direction;
// which packet types a side may send at all is for the caller to say.
//
// A non-minimal Remaining Length is refused in every version, although only
// MQTT 5 says so [MQTT-1.5.5-1]: Next does not know the version.
//
// # Encoding
//
// AppendTo appends one whole packet to a slice that the caller owns and
// reuses. It writes what the struct says and does not check it again, except
// that a field too long for its length prefix panics. Properties come out in a
// fixed order and in the shortest form, so equal packets have equal bytes.
//
// # Stored messages
//
// An application message is stored once, in a form from which it can be sent
// to anyone: the body of an MQTT 5 PUBLISH of QoS 0 without the properties
// that belong to one transmission (Topic Alias, Message Expiry Interval,
// Subscription Identifier; Will Delay Interval of a will).
//
//	stored       topic length u16 | topic | property length varint | properties | payload
//	                                  │                                  │           │
//	             Publish.AppendMessage writes it, ParseMessage finds the three parts,
//	             Delivery.AppendTo puts the rest around them:
//	                                  │                                  │           │
//	MQTT 5 sent  header | topic | packet id | length | alias, expiry, ids | properties | payload
//	MQTT 3 sent  header | topic | packet id | payload
//
// # Ownership
//
// Every []byte in a decoded packet aliases the body it was decoded from: it is
// valid as long as that buffer is not written to, and must be copied to be
// kept. The slices cannot grow into their neighbours. A packet struct may be
// reused for any number of packets; Decode resets all its fields and reuses
// the slices Filters, Codes and SubscriptionIDs, which the next Decode
// overwrites. Decode never writes to the body and AppendTo never to the
// packet. With reused structs and buffers nothing allocates but an Error.
//
// # Concurrency
//
// There is no shared state. Functions may be called from any goroutine; one
// struct or buffer belongs to one goroutine at a time, except that any number
// may encode the same packet or Message, and read the same body, at once.
package packets
