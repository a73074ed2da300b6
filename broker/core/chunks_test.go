package core

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// The sum of an entry is SipHash-2-4 with 128 bits: these are the first vectors
// of its authors' reference implementation (key 00 01 … 0f, input of n bytes
// 00 01 …), whose bytes are little-endian.
func TestSipHash(t *testing.T) {
	var key [16]byte
	for i := range key {
		key[i] = byte(i)
	}
	for n, want := range []string{
		"a3817f04ba25a8e66df67214c7550293", "da87c1d86b99af44347659119b22fc45", "8177228da4a45dc7fca38bdef60affe4",
	} {
		s := newSum(&key, 0, nil)
		input := make([]byte, n)
		for i := range input {
			input[i] = byte(i)
		}
		hi, lo := s.of(input)
		got := binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(nil, lo), hi)
		if hex.EncodeToString(got) != want {
			t.Errorf("%d bytes: %x, want %s", n, got, want)
		}
	}
}

// What the bytes of a chunk are: the layout is a promise.
func TestChunkLayout(t *testing.T) {
	r := newRig(t)
	a := r.connect("a", receiveMaximum(1))
	a.subscribe("x", qos2, 1)
	a.subscribe("+", qos1, 200)
	a.subscribe("$share/g/x", qos1)
	r.publish("x", "m1", 2, retained)
	r.publish("y", "m2", 1)
	r.publish("x", "m3", 1, to("g", "x", a))
	b := newBackend(t.Fatalf)
	r.m.Collect(b)
	for name, want := range map[string]string{
		"Q": "01" + // version
			"01" + "62" + "0e" + "01" + "0201c801" + // message 7, in flight with identifier 1; subscription identifiers 1 and 200
			"02" + "41" + "02" + "01c801" + // queued; subscription identifier 200
			"03" + "41" + "02" + "0201c801" +
			"04" + "11" + "00" + "0a247368617265" + "2f672f78",
		"M": "01" + "8003000000000000" + // ids 7, 8, 9
			"06" + "06" + "365fb08e" + "00" + "01" + "06", // retained, QoS 2, 6 bytes, CRC, no deadline
	} {
		for key, value := range b.entries {
			if key[0] != name[0] {
				continue
			}
			if got := hex.EncodeToString(value); !strings.HasPrefix(got, want) {
				t.Errorf("%x is %s, want %s", key, got, want)
			}
		}
	}
}

// A chunk has one form, and only that is read.
func TestChunkRefuses(t *testing.T) {
	page := appendPage(nil, 6, []message{{size: 3, flags: 1}, {size: 200, flags: messageRetain}})
	for what, c := range map[string]struct {
		table byte
		key   string
		value []byte
	}{
		"empty":                       {'Q', "sessionschunknum", nil},
		"no entries":                  {'Q', "\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x01", []byte{1}},
		"place too large":             {'Q', "12345678\x00\x00\x00\x00\x00\x00\x00\x01", []byte{1, 64, 1, 2}},
		"same place":                  {'Q', "12345678\x00\x00\x00\x00\x00\x00\x00\x01", []byte{1, 6, 1, 2, 6, 1, 2}},
		"number 0":                    {'Q', "12345678\x00\x00\x00\x00\x00\x00\x00\x00", []byte{1, 0, 1, 2}},
		"chunk too high":              {'Q', "12345678\xff\x00\x00\x00\x00\x00\x00\x00", []byte{1, 1, 1, 2}},
		"QoS 0":                       {'Q', "12345678\x00\x00\x00\x00\x00\x00\x00\x00", []byte{1, 1, 0, 2}},
		"unknown flag":                {'Q', "12345678\x00\x00\x00\x00\x00\x00\x00\x00", []byte{1, 1, 0x81, 2}},
		"identifier 0":                {'Q', "12345678\x00\x00\x00\x00\x00\x00\x00\x00", []byte{1, 1, 0x21, 2, 0}},
		"released and queued":         {'Q', "12345678\x00\x00\x00\x00\x00\x00\x00\x00", []byte{1, 1, 0x0a, 2}},
		"no subscription identifiers": {'Q', "12345678\x00\x00\x00\x00\x00\x00\x00\x00", []byte{1, 1, 0x41, 2, 0}},
		"subscription identifier 0":   {'Q', "12345678\x00\x00\x00\x00\x00\x00\x00\x00", []byte{1, 1, 0x41, 2, 1, 0}},
		"long number":                 {'Q', "12345678\x00\x00\x00\x00\x00\x00\x00\x00", []byte{1, 1, 1, 0x82, 0}},
		"empty page":                  {'M', "\x00\x00\x00\x00\x00\x00\x00\x00", make([]byte, 9)},
		"message 0":                   {'M', "\x00\x00\x00\x00\x00\x00\x00\x00", append([]byte{1, 1}, page[2:]...)},
		"page too high":               {'M', "\x04\x00\x00\x00\x00\x00\x00\x00", page},
		"message missing":             {'M', "\x00\x00\x00\x00\x00\x00\x00\x01", append([]byte{1, 7}, page[2:]...)},
		"message more":                {'M', "\x00\x00\x00\x00\x00\x00\x00\x01", append([]byte{1, 2}, page[2:]...)},
	} {
		if Entries(c.table, []byte(c.key), c.value, func(_, _ []byte) {}) {
			t.Errorf("%s: read", what)
		}
		l := &loader{Machine: New(), tails: map[uint64]uint64{}}
		l.applied = 1 << 60
		load := l.loadChunk
		if c.table == TableMessage {
			load = l.loadPage
		} else {
			l.messages.put(1, message{})
		}
		if err := load([]byte(c.key), c.value); !errors.Is(err, ErrEntry) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// The hash of a state is that of its entries, however many share a pair: taking
// one out of a chunk takes its part out of the hash.
func TestHashIsOverEntries(t *testing.T) {
	_, b := stateWithEverything(t)
	for name, value := range b.entries {
		table, key := name[0], []byte(name[1:])
		var whole, parts Hash
		whole.Add(&worldHashKey, table, key, value)
		var ids []uint64
		s := newSum(&worldHashKey, table, nil)
		Entries(table, key, value, func(key, value []byte) {
			parts.add(s.entry(key, value))
			switch table {
			case TableMessage:
				ids = append(ids, binary.BigEndian.Uint64(key))
			case TableQueue:
				id, _ := binary.Uvarint(value[1:])
				ids = append(ids, id)
			}
		})
		if whole != parts {
			t.Errorf("%q: hash %x, of its entries %x", name, whole.Bytes(), parts.Bytes())
		}
		for _, id := range slices.Compact(ids) {
			less := Without(table, key, value, id)
			var without, gone Hash
			if less != nil {
				without.Add(&worldHashKey, table, key, less)
			}
			Entries(table, key, value, func(k, v []byte) {
				of := binary.BigEndian.Uint64(k)
				if table == TableQueue {
					of, _ = binary.Uvarint(v[1:])
				}
				if of == id {
					gone.add(s.entry(k, v))
				}
			})
			without.add(gone.hi, gone.lo)
			if without != whole {
				t.Errorf("%q without %d: %s", name, id, fmt.Sprintf("%x, and what is gone %x", less, gone.Bytes()))
			}
		}
	}
}
