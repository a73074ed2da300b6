package wal

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// engine returns the engine that the options name.
func (o *Options) engine() OpenEngine {
	if o.Engine == nil {
		return OpenTidwall
	}
	return o.Engine
}

// optionsFunc is options, with an engine.
type optionsFunc func(testing.TB) Options

// engineNames are those of all engines.
var engineNames = []string{EngineTidwall, EngineNative}

// eachEngine runs a test over both engines: what a Log promises does not depend
// on who writes its files.
func eachEngine(t *testing.T, test func(t *testing.T, options optionsFunc)) {
	t.Helper()
	for _, name := range engineNames {
		open := engineNamed(t, name)
		t.Run(name, func(t *testing.T) {
			test(t, func(t testing.TB) Options {
				o := options(t)
				o.Engine = open
				return o
			})
		})
	}
}

func engineNamed(t testing.TB, name string) OpenEngine {
	t.Helper()
	open, err := EngineNamed(name)
	if err != nil {
		t.Fatal(err)
	}
	return open
}

// openEngine opens an engine on a directory with one empty segment.
func openEngine(t *testing.T, open OpenEngine, dir string, number uint64, segmentSize int64) Engine {
	t.Helper()
	if err := createSegment(dir, number); err != nil {
		t.Fatal(err)
	}
	e, err := open(dir, Position{Segment: number, Entry: number}, segmentSize)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}

func mustAppend(t *testing.T, e Engine, frame []byte) {
	t.Helper()
	if _, err := e.Append(appendEntry(nil, frame)); err != nil {
		t.Fatal(err)
	}
}

func TestEngineNamed(t *testing.T) {
	for _, name := range append(engineNames, "") {
		if open, err := EngineNamed(name); open == nil || err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	if open, err := EngineNamed("Native"); open != nil || err == nil {
		t.Errorf("%v", err)
	}
}

// The engine's contract: entries lie where it says, in the documented format;
// an entry that brings the segment to its size ends it; only the last segment
// may go on with zeros.
func TestEngineFormat(t *testing.T) {
	eachEngine(t, func(t *testing.T, options optionsFunc) {
		const start, size = 187, 2000
		o := options(t)
		e := openEngine(t, o.engine(), o.Dir, start, size)
		want := files{segmentName(start): {}}
		tail := Position{Segment: start, Entry: start}
		ended := 0
		for i := range 300 {
			frame := bytes.Repeat([]byte{byte(i + 1)}, 84+i*7%300)
			if i%100 == 50 {
				frame = bytes.Repeat(frame, 30) // larger than a segment
			}
			if i == 100 {
				if err := e.Roll(); err != nil {
					t.Fatal(err)
				}
				if err := e.Roll(); err != nil { // nothing to end
					t.Fatal(err)
				}
				tail.Segment, tail.Offset = tail.Entry, 0
				want[segmentName(tail.Segment)] = []byte{}
			}
			entry := appendEntry(nil, frame)
			at, err := e.Append(entry)
			if err != nil || at != tail {
				t.Fatalf("entry %d at %v, want %v: %v", i, at, tail, err)
			}
			name := segmentName(tail.Segment)
			want[name] = append(want[name], entry...)
			tail.Entry++
			tail.Offset += int64(len(entry))
			if tail.Offset >= size {
				tail.Segment, tail.Offset = tail.Entry, 0
				want[segmentName(tail.Segment)] = []byte{}
				ended++
			}
			if e.Tail() != tail {
				t.Fatalf("tail %v, want %v", e.Tail(), tail)
			}
		}
		got := readFiles(t, o.Dir)
		name := segmentName(tail.Segment)
		unused := got[name][tail.Offset:]
		if len(bytes.Trim(unused, "\x00")) > 0 || len(got[name]) > size {
			t.Fatalf("%d bytes behind the end", len(unused))
		}
		got = got.with(name, got[name][:tail.Offset])
		if !got.equal(want) || ended < 10 {
			t.Fatalf("files differ, %d segments ended", ended)
		}
	})
}

// setSync replaces what the engine syncs with.
func setSync(t *testing.T, e Engine, sync func(*os.File) error) {
	t.Helper()
	switch e := e.(type) {
	case *tidwallEngine:
		e.sync = sync
	case *nativeEngine:
		e.sync = sync
	default:
		t.Fatalf("engine %T", e)
	}
}

// A sync is of the file that is written to, also after a rotation.
func TestEngineSyncsTheTail(t *testing.T) {
	eachEngine(t, func(t *testing.T, options optionsFunc) {
		o := options(t)
		e := openEngine(t, o.engine(), o.Dir, 1, 500)
		var synced os.FileInfo
		setSync(t, e, func(f *os.File) (err error) {
			synced, err = f.Stat()
			return errors.Join(err, syncData(f))
		})
		for range 20 {
			mustAppend(t, e, make([]byte, 99))
			if err := e.Sync(); err != nil {
				t.Fatal(err)
			}
			tail, err := os.Stat(filepath.Join(o.Dir, segmentName(e.Tail().Segment)))
			if err != nil || !os.SameFile(synced, tail) {
				t.Fatalf("synced %v, tail %v, %v", synced, e.Tail(), err)
			}
		}
		setSync(t, e, func(*os.File) error { return errFault })
		if err := e.Sync(); !errors.Is(err, errFault) {
			t.Fatal(err)
		}
	})
}

// A log that one engine has written goes on with the other, whatever the first
// one left: closed or killed, in the middle of a segment or at its end.
func TestEnginesTakeTurns(t *testing.T) {
	for _, closed := range []bool{true, false} {
		o := options(t)
		for i := range 60 {
			o.Engine = engineNamed(t, engineNames[i/2%2])
			l := mustOpen(t, o)
			verify(t, l, 1, l.Last())
			last := l.Last()
			for range i % 7 {
				commit(t, l, 1+i%3)
			}
			verify(t, l, 1, last+uint64(i%7*(1+i%3)))
			if closed {
				mustClose(t, l)
				continue
			}
			disk := readFiles(t, o.Dir)
			spare, err := os.ReadFile(filepath.Join(o.Dir, spareName))
			if err == nil {
				disk[spareName] = append(spare, "what a killed engine had in work"...)
			}
			l.fail(errFault)
			if err := l.Close(); !errors.Is(err, errFault) {
				t.Fatal(err)
			}
			o.Dir = fastDir(t)
			disk.write(t, o.Dir)
		}
		l, r := mustReport(t, o)
		if l.Last() < 300 || r.TornErr != nil || len(r.Ignored) > 0 {
			t.Fatalf("%+v", r)
		}
	}
}
