package inspect

import (
	"encoding/hex"
	"encoding/json"
	"time"

	"github.com/wind-c/comqtt/v3/session"
	"github.com/wind-c/comqtt/v3/session/topic"
	"github.com/wind-c/comqtt/v3/wal/record"
)

// Time is a log time, unix milliseconds. It prints as RFC 3339 in UTC, and as
// nothing when it is 0.
type Time int64

const timeForm = "2006-01-02T15:04:05.000Z"

// String returns the time as RFC 3339 with milliseconds.
func (t Time) String() string {
	if t == 0 {
		return ""
	}
	return time.UnixMilli(int64(t)).UTC().Format(timeForm)
}

// MarshalJSON writes a string, null for 0.
func (t Time) MarshalJSON() ([]byte, error) {
	if t == 0 {
		return []byte("null"), nil
	}
	return json.Marshal(t.String())
}

// ID is an identity or a hash of 16 bytes, in hexadecimal where it is printed.
type ID [16]byte

// String returns 32 hexadecimal digits.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// MarshalText implements encoding.TextMarshaler.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// Seconds is a duration that prints as a number of seconds in JSON.
type Seconds time.Duration

// MarshalJSON writes seconds, to the microsecond.
func (s Seconds) MarshalJSON() ([]byte, error) {
	return json.Marshal(time.Duration(s).Round(time.Microsecond).Seconds())
}

// Epoch names a connection: boot.number, empty for none.
type Epoch record.Epoch

// MarshalText implements encoding.TextMarshaler.
func (e Epoch) MarshalText() ([]byte, error) { return []byte(e.String()), nil }

// String returns the boot and the number of the connection in it.
func (e Epoch) String() string {
	if e == 0 {
		return ""
	}
	return itoa(uint64(record.Epoch(e).Boot())) + "." + itoa(uint64(record.Epoch(e).Connection()))
}

// Subscription is one subscription, in words.
type Subscription struct {
	Filter            string `json:"filter"`
	QoS               uint8  `json:"qos"`
	NoLocal           bool   `json:"no_local,omitempty"`
	RetainAsPublished bool   `json:"retain_as_published,omitempty"`
	RetainHandling    uint8  `json:"retain_handling,omitempty"`
	ID                uint32 `json:"id,omitempty"`
}

func subscriptionOf(filter string, o topic.Options, id uint32) Subscription {
	return Subscription{
		Filter: filter, QoS: o.QoS(), NoLocal: o.NoLocal(), RetainAsPublished: o.RetainAsPublished(),
		RetainHandling: o.RetainHandling(), ID: id,
	}
}

func sessionSubscription(filter string, s session.Subscription) Subscription {
	return subscriptionOf(filter, s.Options, s.ID)
}
