package wal

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// threeSegments makes a log of three segments with several frames each and
// returns its files, and the place of its last entry.
func threeSegments(t *testing.T, o Options, end func(*Log)) (disk files, segs []SegmentInfo, last Position) {
	t.Helper()
	open := o.engine()
	o.Engine = func(dir string, tail Position, segmentSize int64) (Engine, error) {
		e, err := open(dir, tail, segmentSize)
		return &spyEngine{Engine: e, last: &last}, err
	}
	l := mustOpen(t, o)
	for i := 0; len(l.Segments()) < 3; i++ {
		commit(t, l, i%3+1)
	}
	commit(t, l, 2)
	commit(t, l, 1)
	end(l)
	disk, segs = readFiles(t, o.Dir), l.Segments()
	if len(disk) != 3 {
		t.Fatalf("files %v", disk.names())
	}
	return disk, segs, last
}

// spyEngine notes where the last entry went.
type spyEngine struct {
	Engine
	last *Position
}

func (e *spyEngine) Append(entry []byte) (at Position, err error) {
	at, err = e.Engine.Append(entry)
	*e.last = at
	return at, err
}

// inspect scans a log, checks each record and gives the verdict.
func inspect(t *testing.T, dir string, floor, need uint64) (*Inspection, bool, error) {
	t.Helper()
	in, err := Scan(dir, testStore, func(seg *SegmentInfo, f *Frame) error {
		return f.Records(func(index uint64, rec []byte) error {
			if !bytes.Equal(rec, record(index)) {
				return fmt.Errorf("record %d is %q", index, rec)
			}
			return nil
		})
	})
	if err != nil {
		return in, false, err
	}
	torn, err := in.Verdict(floor, need)
	return in, torn, err
}

// Every flipped bit is found. In the last frame it is taken for a torn tail,
// anywhere else it is refused, and no scan ever yields a wrong record.
func TestEveryBitFlipIsFound(t *testing.T) {
	eachEngine(t, func(t *testing.T, options optionsFunc) {
		t.Parallel()
		for _, end := range []struct {
			name string
			end  func(*Log)
			lost uint64 // records that a flip in the last entry costs
		}{
			{"killed", func(*Log) {}, 1},
			{"idle", func(l *Log) { mustMark(t, l) }, 0},
		} {
			t.Run(end.name, func(t *testing.T) {
				o := options(t)
				disk, segs, last := threeSegments(t, o, end.end)
				dir := filepath.Join(fastDir(t), "flip")
				disk.write(t, dir)
				whole := segs[2].Last
				for i, seg := range segs {
					if end.lost == 0 && i < 2 { // as above
						continue
					}
					flipAll(t, filepath.Join(dir, seg.Name), disk[seg.Name], func(off int64, bit int) {
						in, torn, err := inspect(t, dir, 0, 0)
						inLast := i == 2 && off >= last.Offset
						var corrupt *CorruptError
						switch {
						case inLast && off < segs[2].Size && torn && err == nil && in.Last == whole-end.lost:
						case off >= segs[2].Size && torn && err == nil && in.Last == whole: // not used yet
						case !inLast && !torn && errors.As(err, &corrupt) && corrupt.Segment == seg.Name &&
							corrupt.Offset <= off && corrupt.Durable >= in.Last:
						default:
							t.Fatalf("%s:%d bit %d: torn %v, %v, log ends at %d", seg.Name, off, bit, torn, err, in.Last)
						}
					})
				}
			})
		}
	})
}

// flipAll flips each bit of the file, one at a time.
func flipAll(t *testing.T, path string, content []byte, fn func(off int64, bit int)) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close() //nolint:errcheck // a test file
	for off, b := range content {
		for bit := range 8 {
			if thin && bit != off%8 {
				continue
			}
			if _, err := f.WriteAt([]byte{b ^ 1<<bit}, int64(off)); err != nil {
				t.Fatal(err)
			}
			fn(int64(off), bit)
		}
		if _, err := f.WriteAt([]byte{b}, int64(off)); err != nil {
			t.Fatal(err)
		}
	}
}

func mustMark(t testing.TB, l *Log) {
	t.Helper()
	if err := l.Mark(); err != nil {
		t.Fatal(err)
	}
}

// mustRefuse opens the files and expects a *CorruptError and nothing modified.
func mustRefuse(t *testing.T, o Options, disk files) *CorruptError {
	t.Helper()
	disk.write(t, o.Dir)
	l, _, err := Open(o)
	if err == nil {
		mustClose(t, l)
		t.Fatalf("opened, ends at %d", l.Last())
	}
	var corrupt *CorruptError
	if !errors.As(err, &corrupt) {
		t.Fatalf("%v is no CorruptError", err)
	}
	if !readFiles(t, o.Dir).equal(disk) {
		t.Fatal("files were modified")
	}
	if _, err := os.Stat(filepath.Join(o.Dir, brokenDir)); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("broken: %v", err)
	}
	return corrupt
}

func TestMissingSegments(t *testing.T) {
	eachEngine(t, func(t *testing.T, options optionsFunc) {
		t.Parallel()
		o := options(t)
		disk, segs, _ := threeSegments(t, o, func(l *Log) { mustClose(t, l) })
		last := segs[2].Last

		t.Run("middle", func(t *testing.T) {
			e := mustRefuse(t, o, disk.with(segs[1].Name, nil))
			if e.Segment != segs[2].Name || e.Offset != 0 || e.Index != segs[1].First || !errors.Is(e, ErrMissing) ||
				e.LaterFirst != segs[2].First || e.LaterLast != last || e.LaterRecords != segs[2].Records {
				t.Fatalf("%+v", e)
			}
		})
		t.Run("first", func(t *testing.T) {
			// By the log alone that is what DropBefore leaves; who needs it says so.
			o := o
			o.Need = segs[0].Last
			e := mustRefuse(t, o, disk.with(segs[0].Name, nil))
			if e.Index != o.Need || !errors.Is(e, ErrMissing) || e.LaterFirst != segs[1].First || e.LaterLast != last {
				t.Fatalf("%+v", e)
			}
			o.Need = segs[1].First
			disk.with(segs[0].Name, nil).write(t, o.Dir)
			l := mustOpen(t, o)
			verify(t, l, segs[1].First, last)
			mustClose(t, l)
		})
		t.Run("last", func(t *testing.T) {
			o := o
			o.Floor = segs[2].First
			e := mustRefuse(t, o, disk.with(segs[2].Name, nil))
			if e.Index != segs[2].First || !errors.Is(e, ErrMissing) || e.Durable != o.Floor {
				t.Fatalf("%+v", e)
			}
			o.Floor = segs[1].Last
			disk.with(segs[2].Name, nil).write(t, o.Dir)
			l := mustOpen(t, o)
			verify(t, l, 1, segs[1].Last)
			mustClose(t, l)
		})
		t.Run("all", func(t *testing.T) {
			o := o
			o.Floor = 1
			if e := mustRefuse(t, o, files{}); !errors.Is(e, ErrMissing) || e.Segment != "" || e.Index != 1 {
				t.Fatalf("%+v", e)
			}
			o.Floor, o.Next = 99, 100 // a sealed backend begins a log of its own
			files{}.write(t, o.Dir)
			l := mustOpen(t, o)
			if l.First() != 100 || l.Last() != 99 {
				t.Fatalf("%d to %d", l.First(), l.Last())
			}
			commit(t, l, 3)
			verify(t, l, 100, 102)
			mustClose(t, l)
		})
		t.Run("end", func(t *testing.T) { // cut at a frame boundary: only a floor shows it
			whole := int(segs[2].Size - entrySize(frameMin)) // without the close mark
			for n := range whole {
				o := o
				o.Floor = last
				if e := mustRefuse(t, o, disk.with(segs[2].Name, disk[segs[2].Name][:n])); e.Index > last {
					t.Fatalf("cut at %d: %+v", n, e)
				}
			}
		})
	})
}

func TestShuffledSegments(t *testing.T) {
	eachEngine(t, func(t *testing.T, options optionsFunc) {
		t.Parallel()
		o := options(t)
		disk, segs, _ := threeSegments(t, o, func(l *Log) { mustClose(t, l) })
		a, b, c := segs[0].Name, segs[1].Name, segs[2].Name
		last := segs[2].Last
		disk = disk.with(c, disk[c][:segs[2].Size])
		unused := append(bytes.Clone(disk[c]), make([]byte, 100)...)
		for _, k := range []struct {
			name string
			disk files
			at   string
		}{
			{"first two swapped", disk.with(a, disk[b]).with(b, disk[a]), b},
			{"last two swapped", disk.with(b, disk[c]).with(c, disk[b]), b},
			{"first and last swapped", disk.with(a, disk[c]).with(c, disk[a]), b},
			{"first and last swapped, with unused space", disk.with(a, unused).with(c, disk[a]), a},
			{"first instead of the second", disk.with(b, disk[a]), b},
			{"second instead of the first", disk.with(a, disk[b]), b},
			{"empty middle", disk.with(b, []byte{}), c},
			{"empty first", disk.with(a, []byte{}), b},
			{"renamed last", disk.with(c, nil).with(segmentName(segs[2].Number+1), disk[c]), segmentName(segs[2].Number + 1)},
			{"garbage", files{segmentName(1): []byte("this is not a segment at all, but somebody put it here")}, segmentName(1)},
			{"empty only", files{segmentName(1): {}}, segmentName(1)},
		} {
			t.Run(k.name, func(t *testing.T) {
				if e := mustRefuse(t, o, k.disk); e.Segment != k.at {
					t.Fatalf("%+v", e)
				}
			})
		}
		// A copy of a segment behind the end loses nothing: it is set aside.
		extra := segs[2].Number + segs[2].Entries
		for _, name := range []string{segmentName(extra), segmentName(extra + 1), segmentName(extra + 7)} {
			for _, copied := range []string{a, b, c} {
				disk.with(name, disk[copied]).write(t, o.Dir)
				l, r := mustReport(t, o)
				verify(t, l, 1, last)
				if r.TornBytes != int64(len(disk[copied])) {
					t.Fatalf("%+v", r)
				}
				checkSaved(t, r)
				commit(t, l, 30)
				mustClose(t, l)
				l = mustOpen(t, o)
				verify(t, l, 1, last+30)
				mustClose(t, l)
			}
		}
	})
}

// The residual hole, and what closes it: rot in the last frame is taken for
// torn after a kill, and refused once a mark or the next frame is there.
func TestLastFrameBeforeAndAfterMark(t *testing.T) {
	eachEngine(t, func(t *testing.T, options optionsFunc) {
		o := options(t)
		disk, segs, last := threeSegments(t, o, func(*Log) {})
		rot := func(disk files) files {
			b := bytes.Clone(disk[segs[2].Name])
			b[last.Offset+headerSize] ^= 4
			return disk.with(segs[2].Name, b)
		}
		rot(disk).write(t, o.Dir)
		if _, torn, err := inspect(t, o.Dir, 0, 0); !torn || err != nil {
			t.Fatalf("torn %v, %v", torn, err)
		}
		if _, torn, err := inspect(t, o.Dir, segs[2].Last, 0); torn || err == nil {
			t.Fatalf("with a floor: torn %v, %v", torn, err)
		}
		// The next Open writes a mark of its own accord.
		disk.write(t, o.Dir)
		l := mustOpen(t, o)
		marked := readFiles(t, o.Dir)
		mustClose(t, l)
		mustRefuse(t, o, rot(marked))
	})
}

func TestForeignStore(t *testing.T) {
	eachEngine(t, func(t *testing.T, options optionsFunc) {
		o := options(t)
		disk, segs, _ := threeSegments(t, o, func(l *Log) { mustClose(t, l) })
		other := options(t)
		other.StoreID = [16]byte{99}
		foreign, fsegs, _ := threeSegments(t, other, func(l *Log) { mustClose(t, l) })

		t.Run("whole log", func(t *testing.T) {
			foreign.write(t, o.Dir)
			_, _, err := Open(o)
			var corrupt *CorruptError
			if !errors.Is(err, ErrForeign) || errors.As(err, &corrupt) {
				t.Fatal(err)
			}
			if !readFiles(t, o.Dir).equal(foreign) {
				t.Fatal("files were modified")
			}
		})
		t.Run("fresh log", func(t *testing.T) {
			o, other := options(t), options(t)
			mustClose(t, mustOpen(t, other))
			other.StoreID = [16]byte{7}
			o.Dir = other.Dir
			if _, _, err := Open(other); !errors.Is(err, ErrForeign) {
				t.Fatal(err)
			}
		})
		t.Run("zero store", func(t *testing.T) {
			zero := o
			zero.StoreID = [16]byte{}
			foreign.write(t, o.Dir)
			if _, _, err := Open(zero); !errors.Is(err, ErrForeign) {
				t.Fatal(err)
			}
		})
		t.Run("middle segment", func(t *testing.T) {
			if e := mustRefuse(t, o, disk.with(segs[1].Name, foreign[fsegs[1].Name])); !errors.Is(e, ErrForeign) {
				t.Fatalf("%+v", e)
			}
		})
		t.Run("behind the end", func(t *testing.T) { // no crash does that, so it is refused although nothing is lost
			name := segmentName(segs[2].Number + segs[2].Entries)
			e := mustRefuse(t, o, disk.with(name, foreign[fsegs[0].Name]))
			if !errors.Is(e, ErrForeign) || e.Segment != name {
				t.Fatalf("%+v", e)
			}
		})
		t.Run("any store", func(t *testing.T) {
			foreign.write(t, o.Dir)
			in, err := Scan(o.Dir, [16]byte{}, nil)
			if err != nil || in.StoreID != other.StoreID || in.Damage != nil || in.Last != fsegs[2].Last {
				t.Fatalf("%+v, %v", in, err)
			}
		})
	})
}

func TestFilesOfOthers(t *testing.T) {
	eachEngine(t, func(t *testing.T, options optionsFunc) {
		o := options(t)
		disk, segs, _ := threeSegments(t, o, func(l *Log) { mustClose(t, l) })
		for _, name := range []string{segs[1].Name + ".START", segs[1].Name + ".END"} {
			with := disk.with(name, []byte{})
			with.write(t, o.Dir)
			if _, _, err := Open(o); !errors.Is(err, ErrStray) {
				t.Fatalf("%s: %v", name, err)
			}
			if !readFiles(t, o.Dir).equal(with) {
				t.Fatal("files were modified")
			}
		}
		with := disk
		for _, name := range []string{
			segs[1].Name + ".START.TEMP", "README", segmentName(0), "99999999999999999999", "-0000000000000000001",
		} {
			with = with.with(name, []byte("x"))
		}
		with.write(t, o.Dir)
		l, r := mustReport(t, o)
		if len(r.Ignored) != 5 {
			t.Fatalf("ignored %v", r.Ignored)
		}
		verify(t, l, 1, segs[2].Last)
		mustClose(t, l)
	})
}
