package backendtest

import (
	"testing"

	"github.com/wind-c/comqtt/v3/backends"
)

// Open opens the store that lives in dir, and makes it if dir is empty. It ends
// the test if it cannot.
type Open = func(t *testing.T, dir string) backends.Store

// Option adjusts the suite to a driver.
type Option func(*suite)

// Volatile says that the store forgets everything at Close.
func Volatile(s *suite) { s.volatile = true }

type suite struct {
	open     Open
	volatile bool
}

// Run runs the whole suite.
func Run(t *testing.T, open Open, opts ...Option) {
	s := &suite{open: open}
	for _, o := range opts {
		o(s)
	}
	t.Run("mark", s.mark)
}

func (s *suite) mark(t *testing.T) {
	st := s.open(t, t.TempDir())
	defer st.Close()
	m, err := st.Mark(t.Context())
	if err != nil || m != (backends.Mark{}) {
		t.Fatalf("mark of a new store = %+v, %v; want zero", m, err)
	}
	want := backends.Mark{StoreID: [16]byte{1, 15: 2}, Applied: 7, Hash: [16]byte{3, 15: 4}, Sealed: true, Schema: backends.Schema, LogTime: -5}
	var b backends.Batch
	b.Put([]byte("Sx"), []byte("v"))
	if err := st.Commit(t.Context(), &b, want); err != nil {
		t.Fatal(err)
	}
	if m, err = st.Mark(t.Context()); err != nil || m != want {
		t.Fatalf("mark = %+v, %v; want %+v", m, err, want)
	}
}
