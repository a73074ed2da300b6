package record

import "github.com/wind-c/comqtt/v3/session/topic"

// encoded is what every kind of record can do.
type encoded interface {
	AppendTo(dst []byte) []byte
	Decode(rec []byte) error
}

// zero returns an empty record of a kind, nil for an unknown one.
func zero(k Kind) encoded {
	switch k {
	case KindGenesis:
		return new(Genesis)
	case KindConfig:
		return new(Config)
	case KindServerStart:
		return new(ServerStart)
	case KindTick:
		return new(Tick)
	case KindConnect:
		return new(Connect)
	case KindDisconnect:
		return new(Disconnect)
	case KindWill:
		return new(LoggedWill)
	case KindSubscribe:
		return new(Subscribe)
	case KindUnsubscribe:
		return new(Unsubscribe)
	case KindPublish:
		return new(Publish)
	case KindPubRel:
		return new(PubRel)
	case KindAck:
		return new(Ack)
	case KindRec:
		return new(Rec)
	case KindDispatch:
		return new(Dispatch)
	case KindSessionRemove:
		return new(SessionRemove)
	case KindRetainClear:
		return new(RetainClear)
	case KindStateHash:
		return new(StateHash)
	case KindUpgrade:
		return new(Upgrade)
	}
	return nil
}

// sample is a record whose bytes are kept in testdata/<name>.hex.
type sample struct {
	name string
	rec  encoded
}

var (
	sampleLimits = Limits{
		MaxInflight: 256, QueueMessages: 1_000_000, QueueBytes: 1 << 30,
		SessionExpiryMax: 1<<32 - 1, RestartGrace: 30, ShareUsers: true, DropOldest: true,
	}
	// topic "a/b", a Content Type property, payload "hi"
	sampleMessage = []byte("\x00\x03a/b\x04\x03\x00\x01thi")
	sampleWill    = Will{QoS: 2, Retain: true, HasExpiry: true, Delay: 300, Expiry: 7, Message: sampleMessage}
	sampleEpoch   = NewEpoch(3, 517)
)

func samples() []sample {
	return []sample{
		{"genesis-v1", &Genesis{StoreID: [16]byte([]byte("0123456789abcdef")), FeatureLevel: 1, Limits: sampleLimits}},
		{"config-v1", &Config{Limits: sampleLimits}},
		{"config-v1-zero", &Config{}},
		{"server-start-v1", &ServerStart{Boot: 3, Wall: 1_790_000_000_000}},
		{"tick-v1", &Tick{}},
		{"connect-v1", &Connect{Epoch: sampleEpoch, ClientID: []byte("c1"), Version: 4, Expiry: 1<<32 - 1, ReceiveMaximum: 65535}},
		{"connect-v1-will", &Connect{
			Epoch: sampleEpoch, ClientID: []byte("c1"), User: []byte("u"), Version: 5, CleanStart: true, HasWill: true,
			Expiry: 3600, ReceiveMaximum: 20, MaxPacket: 1 << 20, Will: sampleWill,
		}},
		{"connect-v1-plain-will", &Connect{
			Epoch: sampleEpoch, ClientID: []byte("c1"), Version: 5, HasWill: true,
			Expiry: 60, ReceiveMaximum: 1, Will: Will{Message: sampleMessage},
		}},
		{"disconnect-v1", &Disconnect{Session: 9, Epoch: sampleEpoch, DropWill: true}},
		{"disconnect-v1-expiry", &Disconnect{Session: 9, Epoch: sampleEpoch, HasExpiry: true, Expiry: 120, Reason: 4}},
		{"disconnect-v1-ephemeral", &Disconnect{Epoch: sampleEpoch, Reason: 0x8d}},
		{"will-v1", &LoggedWill{Epoch: sampleEpoch, ClientID: []byte("c2"), User: []byte("u"), Will: sampleWill}},
		{"subscribe-v1", &Subscribe{Session: 9, Epoch: sampleEpoch, PacketID: 300, ID: 268_435_455, Filters: []Filter{
			{Name: []byte("a/+"), Options: topic.MakeOptions(1, 2, topic.NoLocal)},
			{Name: []byte("$share/g/b/#"), Options: topic.MakeOptions(2, 0, topic.RetainAsPublished)},
		}}},
		{"unsubscribe-v1", &Unsubscribe{Session: 9, Epoch: sampleEpoch, PacketID: 301, Filters: [][]byte{[]byte("a/+"), []byte("x")}}},
		{"publish-v1", &Publish{Session: 9, Epoch: sampleEpoch, PacketID: 5, QoS: 1, Message: sampleMessage}},
		{"publish-v1-qos0-retained", &Publish{Epoch: sampleEpoch, Retain: true, HasExpiry: true, Expiry: 3600, Message: sampleMessage}},
		{"publish-v1-will", &Publish{WillOf: 12, QoS: 2, Message: sampleMessage}},
		{"publish-v1-will-withdrawn", &Publish{WillOf: 12}},
		{"publish-v1-choices", &Publish{Session: 9, Epoch: sampleEpoch, PacketID: 65535, QoS: 2, Message: sampleMessage, Choices: []Choice{
			{Share: []byte("g"), Filter: []byte("a/b"), Session: 40},
			{Share: []byte("h"), Filter: []byte("#"), Epoch: sampleEpoch, QoS: 1},
			{Share: []byte("i"), Filter: []byte("+/b")},
		}}},
		{"pubrel-v1", &PubRel{Session: 9, Epoch: sampleEpoch, PacketID: 5}},
		{"ack-v1", &Ack{Session: 9, Epoch: sampleEpoch, Runs: []Run{{1, 200}, {65535, 1}}}},
		{"ack-v1-expired", &Ack{Session: 9, Epoch: sampleEpoch, Reason: AckExpired, Runs: []Run{{7, 1}}}},
		{"ack-v1-group", &Ack{Epoch: sampleEpoch, Share: []byte("g"), Filter: []byte("a/b"), Message: 1000}},
		{"rec-v1", &Rec{Session: 9, Epoch: sampleEpoch, PacketID: 5, Code: 0x97}},
		{"dispatch-v1-session", &Dispatch{Share: []byte("g"), Filter: []byte("a/b"), Message: 1000, Session: 40}},
		{"dispatch-v1-ephemeral", &Dispatch{Share: []byte("g"), Filter: []byte("a/b"), Message: 1000, Epoch: sampleEpoch, QoS: 2}},
		{"dispatch-v1-back", &Dispatch{Share: []byte("g"), Filter: []byte("a/b"), Message: 1000, From: sampleEpoch}},
		{"session-remove-v1", &SessionRemove{ClientID: []byte("c1"), By: []byte("admin")}},
		{"retain-clear-v1", &RetainClear{Topic: []byte("a/b"), By: []byte("admin")}},
		{"state-hash-v1", &StateHash{Index: 70_000, Hash: [16]byte([]byte("fedcba9876543210"))}},
		{"upgrade-v1", &Upgrade{Level: 2}},
	}
}
