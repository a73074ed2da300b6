package wal

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// bubble runs fn with a clock that moves only when all goroutines sleep.
func bubble(t *testing.T, fn func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, fn)
}

// entries returns the entries in the log, marks included.
func entries(l *Log) (n uint64) {
	for _, s := range l.Segments() {
		n += s.Entries
	}
	return n
}

// lastDurable returns what a scan of the disk as it is knows to be durable.
func lastDurable(t *testing.T, o Options) uint64 {
	t.Helper()
	in, err := Scan(o.Dir, testStore, nil)
	if err != nil || in.Damage != nil {
		t.Fatalf("%+v, %v", in, err)
	}
	return in.Durable
}

func TestIdleMark(t *testing.T) {
	eachEngine(t, func(t *testing.T, options optionsFunc) {
		for _, mode := range []SyncMode{SyncAlways, SyncEvery(20 * time.Millisecond), SyncEvery(10 * time.Second)} {
			t.Run(mode.String(), func(t *testing.T) {
				bubble(t, func(t *testing.T) {
					o := options(t)
					o.Sync, o.IdleMark, o.SegmentSize = mode, 0, 0
					l := mustOpen(t, o)
					n := entries(l)
					for range 10 { // as long as commits follow each other there is no mark
						commit(t, l, 1)
						time.Sleep(DefaultIdleMark - time.Millisecond)
					}
					if entries(l) != n+10 {
						t.Fatalf("%d entries, %d before and 10 commits", entries(l), n)
					}
					time.Sleep(2 * DefaultIdleMark)
					synctest.Wait()
					if entries(l) != n+11 || lastDurable(t, o) != 10 || l.Durable() != 10 {
						t.Fatalf("%d entries, %d before and 10 commits; durable %d, %d on disk",
							entries(l), n, l.Durable(), lastDurable(t, o))
					}
					// An idle log does not touch the disk.
					bytes := l.Bytes()
					time.Sleep(time.Hour)
					synctest.Wait()
					if l.Bytes() != bytes {
						t.Fatalf("%d bytes, %d an hour ago", l.Bytes(), bytes)
					}
					commit(t, l, 1)
					time.Sleep(2 * DefaultIdleMark)
					synctest.Wait()
					if entries(l) != n+13 || lastDurable(t, o) != 11 {
						t.Fatalf("%d entries, durable %d on disk", entries(l), lastDurable(t, o))
					}
					mustClose(t, l)
				})
			})
		}
	})
}

func TestNoIdleMark(t *testing.T) {
	for name, set := range map[string]func(*Options){
		"off":        func(o *Options) { o.IdleMark = -1 },
		"sync never": func(o *Options) { o.IdleMark, o.Sync = 0, SyncNever },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				o := options(t)
				set(&o)
				l := mustOpen(t, o)
				commit(t, l, 1)
				n := entries(l)
				time.Sleep(time.Hour)
				synctest.Wait()
				if entries(l) != n {
					t.Fatalf("%d entries, want %d", entries(l), n)
				}
				mustClose(t, l)
			})
		})
	}
}

func TestSyncInterval(t *testing.T) {
	eachEngine(t, func(t *testing.T, options optionsFunc) {
		bubble(t, func(t *testing.T) {
			o := options(t)
			o.Sync, o.SegmentSize = SyncEvery(100*time.Millisecond), 0
			var count atomic.Int32
			o.Hooks = &Hooks{AfterSync: func(uint64) error { count.Add(1); return nil }}
			l := mustOpen(t, o)
			commit(t, l, 2)
			f := frame(2, 1)
			if err := l.Commit(f); err != nil {
				t.Fatal(err)
			}
			if f.Durable != 0 || l.Durable() != 0 || count.Load() != 0 {
				t.Fatalf("durable %d, %d in the frame, %d syncs", l.Durable(), f.Durable, count.Load())
			}
			time.Sleep(100 * time.Millisecond)
			synctest.Wait()
			if l.Durable() != 3 || count.Load() != 1 {
				t.Fatalf("durable %d, %d syncs", l.Durable(), count.Load())
			}
			commit(t, l, 1)
			if err := l.Sync(); err != nil || l.Durable() != 4 || count.Load() != 2 {
				t.Fatalf("durable %d, %d syncs, %v", l.Durable(), count.Load(), err)
			}
			time.Sleep(time.Hour)
			synctest.Wait()
			if count.Load() != 2 {
				t.Fatalf("%d syncs of an idle log", count.Load())
			}
			mustClose(t, l)
		})
	})
}

func TestSyncNeverSyncsAtRotation(t *testing.T) {
	eachEngine(t, func(t *testing.T, options optionsFunc) {
		o := options(t)
		o.Sync = SyncNever
		l := mustOpen(t, o)
		for len(l.Segments()) == 1 {
			if l.Durable() != 0 {
				t.Fatalf("durable %d without a sync", l.Durable())
			}
			commit(t, l, 2)
		}
		rotated := l.Last()
		if l.Durable() != rotated {
			t.Fatalf("durable %d after the rotation at %d", l.Durable(), rotated)
		}
		commit(t, l, 2)
		if l.Durable() != rotated {
			t.Fatalf("durable %d", l.Durable())
		}
		if err := l.Sync(); err != nil || l.Durable() != rotated+2 {
			t.Fatalf("durable %d, %v", l.Durable(), err)
		}
	})
}

// A failure in the background poisons the log and is told once.
func TestBackgroundFailure(t *testing.T) {
	eachEngine(t, func(t *testing.T, options optionsFunc) {
		for name, set := range map[string]func(*Options){
			"sync": func(o *Options) { o.Sync, o.IdleMark = SyncEvery(10*time.Millisecond), 0 },
			"mark": func(o *Options) { o.Sync, o.IdleMark = SyncEvery(time.Second), 10*time.Millisecond },
		} {
			t.Run(name, func(t *testing.T) {
				bubble(t, func(t *testing.T) {
					told := make(chan error, 10)
					var fail atomic.Bool
					o := options(t)
					set(&o)
					o.SegmentSize = 0
					o.OnFailure = func(err error) { told <- err }
					o.Hooks = &Hooks{BeforeSync: func(uint64) error {
						if fail.Load() {
							return errors.New("no more")
						}
						return nil
					}}
					l := mustOpen(t, o)
					commit(t, l, 1)
					time.Sleep(time.Minute)
					synctest.Wait()
					if len(told) != 0 || l.Durable() != 1 {
						t.Fatalf("durable %d, told %d times", l.Durable(), len(told))
					}
					fail.Store(true)
					commit(t, l, 1)
					time.Sleep(time.Minute)
					synctest.Wait()
					if len(told) != 1 {
						t.Fatalf("told %d times", len(told))
					}
					first := <-told
					if !errors.Is(first, ErrPoisoned) {
						t.Fatal(first)
					}
					if err := l.Commit(frame(2, 1)); !errors.Is(err, ErrPoisoned) || err.Error() != first.Error() {
						t.Fatal(err)
					}
					if l.Durable() != 1 {
						t.Fatalf("durable %d", l.Durable())
					}
					if err := l.Close(); !errors.Is(err, ErrPoisoned) {
						t.Fatal(err)
					}
					if len(told) != 0 {
						t.Fatalf("told again: %v", <-told)
					}
				})
			})
		}
	})
}

func TestMarkOnlyOnce(t *testing.T) {
	eachEngine(t, func(t *testing.T, options optionsFunc) {
		o := options(t)
		l := mustOpen(t, o)
		n := entries(l)
		mustMark(t, l) // the opening mark is one already
		commit(t, l, 1)
		mustMark(t, l)
		mustMark(t, l)
		if entries(l) != n+2 {
			t.Fatalf("%d entries, %d before", entries(l), n)
		}
		mustClose(t, l)
		l, r := mustReport(t, o)
		if !r.Clean {
			t.Fatalf("%+v", r)
		}
		mustClose(t, l) // nothing was written: the log is closed in good order already
		if in, err := Scan(o.Dir, testStore, nil); err != nil || !in.Clean || in.Marks != 3 {
			t.Fatalf("%+v, %v", in, err)
		}
	})
}

func TestClose(t *testing.T) {
	eachEngine(t, func(t *testing.T, options optionsFunc) {
		o := options(t)
		l := mustOpen(t, o)
		if _, _, err := Open(o); !errors.Is(err, ErrLocked) {
			t.Fatalf("second open: %v", err)
		}
		commit(t, l, 3)
		mustClose(t, l)
		_, rerr := l.ReadRecord(1, nil)
		for _, err := range []error{
			l.Close(), l.Commit(frame(3, 1)), l.Sync(), l.Mark(), l.DropBefore(1), rerr,
			l.Replay(1, func(*Frame) error { return nil }),
		} {
			if !errors.Is(err, ErrClosed) {
				t.Errorf("%v", err)
			}
		}
		l = mustOpen(t, o)
		verify(t, l, 1, 3)
	})
}

// Everything at once, for the race detector: commits, marks, syncs, drops,
// random reads and replays.
func TestConcurrency(t *testing.T) {
	eachEngine(t, func(t *testing.T, options optionsFunc) {
		for _, mode := range []SyncMode{SyncAlways, SyncEvery(time.Millisecond), SyncNever} {
			t.Run(mode.String(), func(t *testing.T) {
				o := options(t)
				o.Sync, o.IdleMark, o.SegmentSize = mode, time.Millisecond, 8<<10
				o.OnFailure = func(err error) { t.Error(err) }
				l := mustOpen(t, o)
				var wg sync.WaitGroup
				done := make(chan struct{})
				loop := func(fn func(i uint64) error) {
					wg.Go(func() {
						for i := uint64(1); ; i++ {
							select {
							case <-done:
								return
							default:
							}
							if err := fn(i); err != nil && !errors.Is(err, ErrNotFound) {
								t.Error(err)
								return
							}
						}
					})
				}
				for seed := range uint64(3) {
					loop(func(i uint64) error {
						first, last := l.First(), l.Last()
						if last < first {
							return nil
						}
						index := first + (i*7919+seed)%(last-first+1)
						rec, err := l.ReadRecord(index, nil)
						if err == nil && string(rec) != string(record(index)) {
							t.Errorf("record %d is %q", index, rec)
						}
						return err
					})
				}
				loop(func(i uint64) error {
					next := l.First()
					return l.Replay(next, func(f *Frame) error {
						return f.Records(func(index uint64, rec []byte) error {
							if index != next || string(rec) != string(record(index)) {
								t.Errorf("record %d is %q, want %d", index, rec, next)
							}
							next++
							return nil
						})
					})
				})
				loop(func(i uint64) error { return l.Sync() })
				loop(func(i uint64) error { return l.Mark() })
				loop(func(i uint64) error {
					if last := l.Last(); last > 400 {
						return l.DropBefore(last - 400)
					}
					return nil
				})
				for l.Last() < 4000 || l.First() == 1 { // until the dropper had its turn too
					commit(t, l, 7)
				}
				close(done)
				wg.Wait()
				verify(t, l, l.First(), l.Last())
				last := l.Last()
				mustClose(t, l)
				l, r := mustReport(t, o)
				if l.Last() != last || !r.Clean {
					t.Fatalf("log ends at %d, want %d: %+v", l.Last(), last, r)
				}
				verify(t, l, l.First(), last)
			})
		}
	})
}
