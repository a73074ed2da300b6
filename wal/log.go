package wal

import "errors"

// Log is the write-ahead log.
type Log struct{}

var errTodo = errors.New("wal: being written")

func Open(o Options) (*Log, *Report, error) { return nil, nil, errTodo }

func Scan(dir string, storeID [16]byte, fn func(seg *SegmentInfo, f *Frame) error) (*Inspection, error) {
	return nil, errTodo
}

func (l *Log) Commit(f *Frame) error { return errTodo }
func (l *Log) Sync() error           { return errTodo }
func (l *Log) Mark() error           { return errTodo }
func (l *Log) First() uint64         { return 0 }
func (l *Log) Last() uint64          { return 0 }
func (l *Log) Durable() uint64       { return 0 }
func (l *Log) Bytes() int64          { return 0 }
func (l *Log) Segments() []SegmentInfo { return nil }
func (l *Log) Err() error            { return errTodo }
func (l *Log) Replay(from uint64, fn func(f *Frame) error) error { return errTodo }
func (l *Log) ReadRecord(index uint64, dst []byte) ([]byte, error) { return nil, errTodo }
func (l *Log) DropBefore(index uint64) error { return errTodo }
func (l *Log) Close() error { return errTodo }
func OpenTidwall(dir string, tail uint64, segmentSize int64) (Engine, error) { return nil, errTodo }
