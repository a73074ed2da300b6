package backends

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"pgregory.net/rapid"
)

// failer is what testing.T and rapid.T have in common here.
type failer interface {
	Helper()
	Error(args ...any)
	Errorf(format string, args ...any)
}

// render lists what a batch does, as a driver sees it.
func render(t failer, b *Batch) []string {
	t.Helper()
	var out []string
	for op := range b.Sorted() {
		if op.Delete {
			if op.Value != nil {
				t.Errorf("delete of %q has a value", op.Key)
			}
			out = append(out, fmt.Sprintf("-%s", op.Key))
			continue
		}
		k, v, err := Unseal(op.Key, op.Value)
		if err != nil {
			t.Error(err)
		}
		out = append(out, fmt.Sprintf("%s=%s", k, v))
	}
	return out
}

func TestBatchLaterWins(t *testing.T) {
	var b Batch
	b.Put([]byte("b"), []byte("1"))
	b.Put([]byte("a"), []byte("2"))
	b.Delete([]byte("b"))
	b.Put([]byte("c"), nil)
	b.Delete([]byte("a"))
	b.Put([]byte("a"), []byte("3"))
	if got, want := render(t, &b), []string{"a=3", "-b", "c="}; !slices.Equal(got, want) {
		t.Errorf("sorted = %q, want %q", got, want)
	}
	if b.Len() != 6 {
		t.Errorf("len = %d", b.Len())
	}
	if want := 6 + 3 + 4*4; b.Bytes() != want { // keys, values, seals
		t.Errorf("bytes = %d, want %d", b.Bytes(), want)
	}
	b.Delete([]byte("c")) // after Sorted
	if got, want := render(t, &b), []string{"a=3", "-b", "-c"}; !slices.Equal(got, want) {
		t.Errorf("sorted = %q, want %q", got, want)
	}
}

// TestBatchCopies: the caller may reuse its slices at once.
func TestBatchCopies(t *testing.T) {
	var b Batch
	k, v := []byte("k1"), []byte("v1")
	b.Put(k, v)
	k[1], v[1] = '2', '2'
	b.Put(k, v)
	k[1] = '3'
	b.Delete(k)
	k[1] = '4'
	if got, want := render(t, &b), []string{"k1=v1", "k2=v2", "-k3"}; !slices.Equal(got, want) {
		t.Errorf("sorted = %q, want %q", got, want)
	}
}

func TestBatchErr(t *testing.T) {
	var b Batch
	b.Put([]byte("a"), nil)
	if b.Err() != nil {
		t.Fatal(b.Err())
	}
	b.Delete(nil)
	if !errors.Is(b.Err(), ErrKey) || b.Len() != 1 {
		t.Errorf("err = %v, len = %d", b.Err(), b.Len())
	}
	b.Reset()
	if b.Err() != nil || b.Len() != 0 || b.Bytes() != 0 {
		t.Errorf("after Reset: %v, %d, %d", b.Err(), b.Len(), b.Bytes())
	}
}

// TestBatchModel compares with a map, over several lives of one batch.
func TestBatchModel(t *testing.T) {
	var b Batch
	rapid.Check(t, func(t *rapid.T) {
		b.Reset()
		model := map[string]string{}
		n := rapid.IntRange(0, 300).Draw(t, "n")
		rising := rapid.Bool().Draw(t, "rising")
		for i := range n {
			k := rapid.StringMatching(`[A-C][a-d]{0,2}`).Draw(t, "key")
			if rising {
				k = fmt.Sprintf("K%05d", i)
			}
			if rapid.Bool().Draw(t, "delete") {
				b.Delete([]byte(k))
				model[k] = "-" + k
			} else {
				v := rapid.SampledFrom([]string{"", "v", string(make([]byte, arenaShared-20)), string(make([]byte, arenaShared+1))}).Draw(t, "val")
				b.Put([]byte(k), []byte(v))
				model[k] = k + "=" + v
			}
		}
		var keys []string
		for k := range model {
			keys = append(keys, k)
		}
		slices.Sort(keys)
		got := render(t, &b)
		if len(got) != len(keys) || b.Len() != n {
			t.Fatalf("%d operations of %d, want %d of %d", len(got), b.Len(), len(keys), n)
		}
		for i, k := range keys {
			if got[i] != model[k] {
				t.Fatalf("operation %d = %.50q, want %.50q", i, got[i], model[k])
			}
		}
	})
}

// TestBatchShared: after Sort several stores may read a batch at once. Run with
// -race.
func TestBatchShared(t *testing.T) {
	var b Batch
	for i := range 1000 {
		b.Put(IDKey(nil, TableBody, uint64(i*7919%1000)), []byte("v"))
	}
	b.Sort()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			var last []byte
			for op := range b.Sorted() {
				if bytes.Compare(last, op.Key) >= 0 {
					t.Errorf("%x after %x", op.Key, last)
				}
				last = op.Key
			}
		})
	}
	wg.Wait()
}

// TestBatchAllocates: a batch that is used again needs no memory.
func TestBatchAllocates(t *testing.T) {
	var b Batch
	key, val := make([]byte, 0, 32), make([]byte, 300)
	for _, step := range []uint64{1, 7919} {
		n := testing.AllocsPerRun(20, func() {
			b.Reset()
			for i := range uint64(5000) {
				key = IDKey(key[:0], TableBody, i*step%5000)
				b.Put(key, val)
			}
			b.Sort()
		})
		if n != 0 {
			t.Errorf("step %d: %v allocations", step, n)
		}
	}
}

func BenchmarkBatch(b *testing.B) {
	for _, step := range []uint64{1, 7919} {
		b.Run(fmt.Sprintf("step=%d", step), func(b *testing.B) {
			var batch Batch
			key, val := make([]byte, 0, 32), make([]byte, 300)
			b.ReportAllocs()
			b.SetBytes(10_000 * 300)
			for b.Loop() {
				batch.Reset()
				for i := range uint64(10_000) {
					key = IDKey(key[:0], TableBody, i*step%10_000)
					batch.Put(key, val)
				}
				batch.Sort()
			}
		})
	}
}

func BenchmarkUnseal(b *testing.B) {
	k, v := sealed(b, IDKey(nil, TableBody, 1), make([]byte, 300))
	b.SetBytes(300)
	for b.Loop() {
		if _, _, err := Unseal(k, v); err != nil {
			b.Fatal(err)
		}
	}
}
