package backends

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
)

// sealed returns the stored pair a batch makes of key and val.
func sealed(t testing.TB, key, val []byte) (storedKey, stored []byte) {
	t.Helper()
	var b Batch
	b.Put(key, val)
	if err := b.Err(); err != nil {
		t.Fatal(err)
	}
	for op := range b.Sorted() {
		return bytes.Clone(op.Key), bytes.Clone(op.Value)
	}
	t.Fatal("batch is empty")
	return nil, nil
}

func longKey(n int) []byte {
	return []byte("T" + strings.Repeat("topic/level/", n/12+1)[:n-1])
}

func TestSealRoundTrip(t *testing.T) {
	for _, n := range []int{1, 9, MaxPlainKey - 1, MaxPlainKey, MaxPlainKey + 1, 65_536, MaxKey} {
		for _, val := range [][]byte{nil, {}, {0}, []byte("value"), make([]byte, 100_000)} {
			key := longKey(n)
			storedKey, stored := sealed(t, key, val)
			if n <= MaxPlainKey && !bytes.Equal(storedKey, key) || n > MaxPlainKey && len(storedKey) != foldedKey {
				t.Fatalf("key of %d bytes is stored as %d bytes", n, len(storedKey))
			}
			if !bytes.Equal(storedKey, StoredKey(key)) {
				t.Fatalf("key of %d bytes: batch and StoredKey differ", n)
			}
			if n <= MaxPlainKey && !bytes.Equal(stored, Seal(nil, key, val)) {
				t.Fatalf("key of %d bytes: batch and Seal differ", n)
			}
			k, v, err := Unseal(storedKey, stored)
			if err != nil || !bytes.Equal(k, key) || !bytes.Equal(v, val) || v == nil {
				t.Fatalf("key of %d, value of %d bytes: got %d, %d bytes, %v", n, len(val), len(k), len(v), err)
			}
		}
	}
}

// TestSealDamage flips every bit of stored keys and values, cuts and exchanges
// them.
func TestSealDamage(t *testing.T) {
	damaged := func(what string, k, v []byte) {
		t.Helper()
		var c *CorruptError
		if _, _, err := Unseal(k, v); !errors.Is(err, ErrDamaged) || !errors.As(err, &c) {
			t.Fatalf("%s: %v, want a *CorruptError", what, err)
		}
	}
	for _, n := range []int{9, MaxPlainKey + 7} {
		k, v := sealed(t, longKey(n), []byte("some value"))
		for bit := range len(k) * 8 {
			bad := bytes.Clone(k)
			bad[bit/8] ^= 1 << (bit % 8)
			damaged("bit of the key", bad, v)
		}
		for bit := range len(v) * 8 {
			bad := bytes.Clone(v)
			bad[bit/8] ^= 1 << (bit % 8)
			damaged("bit of the value", k, bad)
		}
		for cut := range v {
			damaged("cut at the end", k, v[:cut])
			damaged("cut at the start", k, v[cut+1:])
		}
		_, other := sealed(t, longKey(n + 1)[1:], []byte("some value"))
		damaged("value of another key", k, other)
		damaged("no value", k, nil)
		damaged("zeros", k, make([]byte, len(v)))
	}
	// A byte that moves from the value to the key, as a wrong length in a page
	// would make it, with the same bytes under the seal.
	_, stored := sealed(t, []byte("Sab"), []byte("cd"))
	damaged("shifted", []byte("Sabc"), stored[1:])
}

func TestUnsealAllocates(t *testing.T) {
	k, v := sealed(t, []byte("S12345678"), make([]byte, 300))
	n := testing.AllocsPerRun(100, func() {
		if _, _, err := Unseal(k, v); err != nil {
			t.Fatal(err)
		}
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestStoredPrefix(t *testing.T) {
	key := longKey(5000)
	for _, n := range []int{0, 1, MaxPlainKey, MaxPlainKey + 1, 5000} {
		if p := StoredPrefix(key[:n]); !bytes.HasPrefix(StoredKey(key), p) || !bytes.HasPrefix(key[:n], p) {
			t.Errorf("prefix of %d bytes: stored key has not %d of them", n, len(p))
		}
	}
}

func TestKeys(t *testing.T) {
	if k := Key([]byte("x"), TableRetained, []byte("a/b")); string(k) != "xTa/b" {
		t.Errorf("Key = %q", k)
	}
	k := PairKey(nil, TableQueue, 0x0102030405060708, 9)
	if a, b, ok := SplitPair(k); !ok || a != 0x0102030405060708 || b != 9 {
		t.Errorf("SplitPair(%x) = %x, %x, %t", k, a, b, ok)
	}
	if !bytes.HasPrefix(k, IDKey(nil, TableQueue, 0x0102030405060708)) {
		t.Errorf("%x lacks the prefix of its session", k)
	}
	id, rest, ok := SplitID(NameKey(nil, TableSubscription, 7, "a/#"))
	if !ok || id != 7 || string(rest) != "a/#" {
		t.Errorf("SplitID = %d, %q, %t", id, rest, ok)
	}
	if _, _, ok := SplitID([]byte("S1234567")); ok {
		t.Error("SplitID took a short key")
	}
	for _, n := range []int{0, 9, 16, 18} {
		if _, _, ok := SplitPair(make([]byte, n)); ok {
			t.Errorf("SplitPair took %d bytes", n)
		}
	}
	var keys [][]byte
	for _, id := range []uint64{0, 1, 255, 256, 1 << 32, 1<<64 - 1} {
		keys = append(keys, IDKey(nil, TableBody, id))
	}
	if !slices.IsSortedFunc(keys, bytes.Compare) {
		t.Error("growing ids are not growing keys")
	}
}

// FuzzUnseal: whatever unseals is what a batch would store.
func FuzzUnseal(f *testing.F) {
	for _, n := range []int{1, 9, MaxPlainKey, MaxPlainKey + 1} {
		k, v := sealed(f, longKey(n), []byte("value"))
		f.Add(k, v)
	}
	f.Fuzz(func(t *testing.T, storedKey, stored []byte) {
		key, val, err := Unseal(storedKey, stored)
		if err != nil {
			if !errors.Is(err, ErrDamaged) {
				t.Fatal(err)
			}
			return
		}
		var b Batch
		b.Put(key, val)
		for op := range b.Sorted() {
			if !bytes.Equal(op.Key, storedKey) || !bytes.Equal(op.Value, stored) {
				t.Fatalf("%x, %x unseals to %x, %x", storedKey, stored, key, val)
			}
		}
	})
}
