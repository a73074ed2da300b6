package main

import (
	"bytes"
	"testing"
)

func TestPayload(t *testing.T) {
	for _, size := range []int{0, 1, 40, 41, 42, 43, 44, 500, 70_000} {
		for seq := range uint32(5) {
			m := Message{Stream{"p0", "t/a/1", 2}, seq + 1}
			b := AppendPayload([]byte("before"), m, size)[len("before"):]
			if got, err := ParsePayload(b); err != nil || got != m {
				t.Fatalf("size %d: %v, %v; want %v", size, got, err, m)
			}
			if size > 50 && len(b) != size {
				t.Errorf("%d bytes, want %d", len(b), size)
			}
			if !bytes.Equal(b, AppendPayload(nil, m, size)) {
				t.Error("the payload sent again differs")
			}
			for _, i := range []int{0, 2, len(b) / 2, len(b) - 1} {
				damaged := bytes.Clone(b)
				damaged[i] ^= 0x40
				if _, err := ParsePayload(damaged); err == nil {
					t.Errorf("size %d: a changed byte at %d was not noticed", size, i)
				}
			}
			if _, err := ParsePayload(b[:len(b)-1]); err == nil {
				t.Error("a missing byte was not noticed")
			}
		}
	}
}
