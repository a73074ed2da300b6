package wal

import "testing"

// memoryEngine accepts everything, to measure the log without its engine.
type memoryEngine struct{ at Position }

func (e *memoryEngine) Append(entry []byte) (Position, error) {
	at := e.at
	e.at.Entry++
	e.at.Offset += int64(len(entry))
	return at, nil
}
func (e *memoryEngine) Sync() error    { return nil }
func (e *memoryEngine) Roll() error    { return nil }
func (e *memoryEngine) Tail() Position { return e.at }
func (e *memoryEngine) Close() error   { return nil }

func TestCommitDoesNotAllocate(t *testing.T) {
	for name, size := range map[string]int{"small": 3, "compressed": 2000} {
		t.Run(name, func(t *testing.T) {
			o := options(t)
			o.SegmentSize, o.Compress = segmentSizeMax, CompressAuto
			o.Engine = func(_ string, tail Position, _ int64) (Engine, error) {
				return &memoryEngine{tail}, nil
			}
			l := mustOpen(t, o)
			f := Frame{Count: uint32(size), Body: frame(0, size).Body}
			l.idx.segs[0].frames = make([]loc, 0, 2000) // grows by doubling otherwise
			n := testing.AllocsPerRun(1000, func() {
				if err := l.Commit(&f); err != nil {
					t.Fatal(err)
				}
			})
			if n != 0 {
				t.Fatalf("%v allocations", n)
			}
			if compressed := f.Flags&FlagCompressed != 0; compressed != (size > 3) {
				t.Fatalf("flags %d", f.Flags)
			}
		})
	}
}

func TestReadersDoNotAllocate(t *testing.T) {
	eachEngine(t, func(t *testing.T, options optionsFunc) {
		o := options(t)
		o.SegmentSize = 64 << 10
		l := mustOpen(t, o)
		for l.Last() < 30_000 {
			commit(t, l, 300)
		}
		buf := make([]byte, 0, 4096)
		index := uint64(0)
		read := func() {
			index = (index + 1117) % l.Last()
			var err error
			if buf, err = l.ReadRecord(index+1, buf[:0]); err != nil {
				t.Fatal(err)
			}
		}
		for range 200 { // opens the files, grows the buffers
			read()
		}
		if n := testing.AllocsPerRun(1000, read); n != 0 {
			t.Errorf("ReadRecord: %v allocations", n)
		}
		segments := len(l.Segments())
		records := func(uint64, []byte) error { return nil }
		n := testing.AllocsPerRun(10, func() {
			if err := l.Replay(0, func(f *Frame) error { return f.Records(records) }); err != nil {
				t.Fatal(err)
			}
		})
		if perSegment := n / float64(segments); perSegment > 8 { // opening a file
			t.Errorf("Replay: %v allocations for %d segments", n, segments)
		}
	})
}
