package wal

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"unsafe"
)

// syncer makes files durable one after another, and waits for the kernel the
// way one waits for a socket: Linux carries the fdatasync out on a worker of its
// own and raises an eventfd when it is done (io_submit with IOCB_CMD_FDSYNC, man
// io_submit 2). A blocking call would take a processor away from the runtime
// each time, and while it is handed back and forth sysmon runs every 20 µs: a
// tenth of the CPU time of a broker under load.
//
// Where the kernel or a sandbox does not have the call, syncData does it; it
// also does the first few, because to take the kernel's queue down again costs
// tens of milliseconds, too much for a log that is hardly written to.
type syncer struct {
	mu       sync.Mutex
	plain    int      // syncs without the queue so far
	context  uintptr  // of the kernel's queue; 0 = not available
	finished *os.File // eventfd
	resfd    uint32   // its descriptor
}

// iocb is struct iocb of linux/aio_abi.h on little-endian machines, and ioEvent
// its struct io_event, in words of 64 bits.
type (
	iocb    [8]uint64
	ioEvent [4]uint64
)

// fdsyncOf is the request for an fdatasync of fd that raises the eventfd resfd.
func fdsyncOf(fd, resfd uint32) *iocb {
	return &iocb{
		2: iocbFdsync | uint64(fd)<<32,       // aio_lio_opcode, aio_reqprio, aio_fildes
		7: iocbFlagResfd | uint64(resfd)<<32, // aio_flags, aio_resfd
	}
}

// result is the field res: what fdatasync would return, an errno negated.
func (e *ioEvent) result() int64 { return int64(e[2]) }

const (
	iocbFdsync    = 3 // IOCB_CMD_FDSYNC
	iocbFlagResfd = 1 // IOCB_FLAG_RESFD
)

// plainSyncs is how many syncs come before the kernel's queue is set up.
const plainSyncs = 64

// newSyncer returns a syncer that close must be called on.
func newSyncer() *syncer { return &syncer{} }

// setUp asks for the kernel's queue.
func (s *syncer) setUp() {
	if !littleEndian() {
		return
	}
	fd, _, errno := syscall.RawSyscall(syscall.SYS_EVENTFD2, 0, syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if errno != 0 {
		return
	}
	s.finished, s.resfd = os.NewFile(fd, "eventfd"), uint32(fd)
	_, _, errno = syscall.RawSyscall(syscall.SYS_IO_SETUP, 1, uintptr(unsafe.Pointer(&s.context)), 0)
	if errno != 0 {
		s.context = 0
	}
}

func littleEndian() bool {
	one := uint16(1)
	return *(*byte)(unsafe.Pointer(&one)) == 1
}

// sync makes the data of f durable, and of its attributes only what is needed
// to read it back. f must not be closed meanwhile.
func (s *syncer) sync(f *os.File) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.context == 0 {
		if s.plain++; s.plain == plainSyncs {
			s.setUp()
		}
		return syncData(f)
	}
	err := s.submit(f)
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOSYS) || errors.Is(err, syscall.EAGAIN) {
		return syncData(f) // nothing was begun: this file system or kernel cannot, or not now
	}
	if err == nil {
		err = s.wait()
	}
	if err != nil {
		return &os.PathError{Op: "fdatasync", Path: f.Name(), Err: err}
	}
	return nil
}

// submit begins the fdatasync.
func (s *syncer) submit(f *os.File) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var errno syscall.Errno
	err = conn.Control(func(fd uintptr) {
		op := fdsyncOf(uint32(fd), s.resfd)
		_, _, errno = syscall.RawSyscall(syscall.SYS_IO_SUBMIT, s.context, 1, uintptr(unsafe.Pointer(&op)))
	})
	if err == nil && errno != 0 {
		err = errno
	}
	return err
}

// wait waits for what was begun and returns its outcome. Any error leaves
// unknown what is durable, like a failed fdatasync.
func (s *syncer) wait() error {
	var count [8]byte
	if _, err := s.finished.Read(count[:]); err != nil {
		return err
	}
	var event ioEvent
	n, _, errno := syscall.RawSyscall6(syscall.SYS_IO_GETEVENTS, s.context, 1, 1, uintptr(unsafe.Pointer(&event)), 0, 0)
	switch {
	case errno != 0:
		return errno
	case n != 1:
		return fmt.Errorf("io_getevents: %d events of 1", n)
	case event.result() < 0:
		return syscall.Errno(-event.result())
	}
	return nil
}

// close releases the kernel's queue.
func (s *syncer) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.context != 0 {
		syscall.Syscall(syscall.SYS_IO_DESTROY, s.context, 0, 0)
		s.context = 0
	}
	if s.finished == nil {
		return nil
	}
	return s.finished.Close()
}

// available reports whether the kernel's queue is in use.
func (s *syncer) available() bool { return s.context != 0 }
