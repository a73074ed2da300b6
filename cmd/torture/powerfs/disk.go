package powerfs

import (
	"path"
	"slices"
	"sync"
	"syscall"
	"time"
)

// Kind says what an operation does.
type Kind uint8

// The operations that change something or make it durable.
const (
	OpCreate Kind = iota + 1 // of a file or socket
	OpMkdir
	OpRename
	OpUnlink // of a file or an empty directory
	OpWrite
	OpResize // truncation and allocation
	OpSync   // fsync and fdatasync of a file
	OpSyncDir
)

var kindNames = [...]string{
	OpCreate: "create", OpMkdir: "mkdir", OpRename: "rename", OpUnlink: "unlink",
	OpWrite: "write", OpResize: "resize", OpSync: "sync", OpSyncDir: "sync-dir",
}

func (k Kind) String() string {
	if int(k) < len(kindNames) && kindNames[k] != "" {
		return kindNames[k]
	}
	return "op"
}

// Op is an operation that is about to happen. Paths are relative to the root of
// the disk, which itself is "".
type Op struct {
	Kind Kind
	Path string
	To   string // of a rename: the new path
	Len  int    // of a write
}

// A node is a file or directory.
type node struct {
	ino    uint64
	mode   uint32 // with the type
	mtime  time.Time
	parent *node // nil: the root, or unlinked
	name   string

	kids map[string]*node // as processes see them
	kept map[string]*node // on stable storage

	data    []byte // as processes see it
	stable  []byte // on stable storage
	pending []write
}

// A write is one change of a file since its last sync: bytes at an offset, or a
// new size if there are no bytes.
type write struct {
	off  int64 // or the size
	data []byte
}

func (n *node) dir() bool { return n.mode&syscall.S_IFMT == syscall.S_IFDIR }

func (n *node) path() string {
	if n.parent == nil {
		return n.name
	}
	return path.Join(n.parent.path(), n.name)
}

// A change of names since the last sync of its directories.
type change struct {
	node     *node
	from, to *node // directories; nil = none
	fromName string
	toName   string
}

// apply makes the change durable.
func (c *change) apply() {
	if c.from != nil {
		delete(c.from.kept, c.fromName)
	}
	if c.to != nil {
		c.to.kept[c.toName] = c.node
	}
}

// A Disk is the content of the file system.
type Disk struct {
	mu      sync.Mutex
	root    *node
	ino     uint64
	changes []change // of names, oldest first
	deaf    func(Op) bool
	armed   func(Op) bool
	off     bool // the power is off
	offAt   time.Time
	cut     chan struct{} // closed when it goes off
	release chan struct{} // closed when what hangs may fail
	ops     uint64
	synced  map[string]time.Time // path → begin of its last sync
}

// New returns an empty disk.
func New() *Disk {
	d := &Disk{}
	d.root = d.node(syscall.S_IFDIR | 0o755)
	d.on()
	return d
}

// on turns the power on.
func (d *Disk) on() {
	d.off, d.offAt, d.armed = false, time.Time{}, nil
	d.cut, d.release = make(chan struct{}), make(chan struct{})
	d.synced = map[string]time.Time{}
}

func (d *Disk) node(mode uint32) *node {
	d.ino++
	n := &node{ino: d.ino, mode: mode, mtime: time.Now()}
	if n.dir() {
		n.kids, n.kept = map[string]*node{}, map[string]*node{}
	}
	return n
}

// Deafen makes the disk ignore the syncs that which names, while saying that
// they were done. nil ends it.
func (d *Disk) Deafen(which func(Op) bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.deaf = which
}

// Arm cuts the power at the operation at which when returns true: it is asked
// before each. nil disarms. The operation has not happened then.
func (d *Disk) Arm(when func(Op) bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.armed = when
}

// Cut turns the power off.
func (d *Disk) Cut() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.turnOff()
}

func (d *Disk) turnOff() {
	if !d.off {
		d.off, d.offAt = true, time.Now()
		close(d.cut)
	}
}

// Off is closed when the power goes off.
func (d *Disk) Off() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.cut
}

// Release lets the operations that hang since the cut fail.
func (d *Disk) Release() {
	d.mu.Lock()
	defer d.mu.Unlock()
	select {
	case <-d.release:
	default:
		close(d.release)
	}
}

// Ops returns how many operations there were.
func (d *Disk) Ops() uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.ops
}

// OffAt returns when the power went off, the zero time if it is on.
func (d *Disk) OffAt() time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.offAt
}

// LastSync returns when the last completed sync of one of the paths that match
// began, zero if there was none since the power came on.
func (d *Disk) LastSync(match func(path string) bool) (last time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for p, at := range d.synced {
		if match(p) && at.After(last) {
			last = at
		}
	}
	return last
}

// do carries out an operation, unless the power is off or goes off at it. The
// operation is on n, or on the name in the directory n.
func (d *Disk) do(op Op, n *node, name string, fn func(op *Op) syscall.Errno) syscall.Errno {
	d.mu.Lock()
	op.Path = path.Join(n.path(), name)
	if !d.off {
		d.ops++
		if d.armed != nil && d.armed(op) {
			d.turnOff()
		}
	}
	if d.off {
		release := d.release
		d.mu.Unlock()
		<-release
		return syscall.EIO
	}
	defer d.mu.Unlock()
	return fn(&op)
}

// rename notes a change of names and makes it visible.
func (d *Disk) rename(c change) {
	if c.from != nil {
		delete(c.from.kids, c.fromName)
	}
	if c.to != nil {
		if old := c.to.kids[c.toName]; old != nil {
			old.parent = nil
		}
		c.to.kids[c.toName] = c.node
		c.node.parent, c.node.name = c.to, c.toName
	} else {
		c.node.name, c.node.parent = c.node.path(), nil
	}
	d.changes = append(d.changes, c)
}

func (d *Disk) create(dir *node, name string, mode uint32) (*node, syscall.Errno) {
	op := Op{Kind: OpCreate}
	if mode&syscall.S_IFMT == syscall.S_IFDIR {
		op.Kind = OpMkdir
	}
	var n *node
	errno := d.do(op, dir, name, func(*Op) syscall.Errno {
		if dir.kids[name] != nil {
			return syscall.EEXIST
		}
		n = d.node(mode)
		d.rename(change{node: n, to: dir, toName: name})
		return 0
	})
	return n, errno
}

func (d *Disk) unlink(dir *node, name string, directory bool) syscall.Errno {
	return d.do(Op{Kind: OpUnlink}, dir, name, func(*Op) syscall.Errno {
		n := dir.kids[name]
		switch {
		case n == nil:
			return syscall.ENOENT
		case n.dir() && !directory:
			return syscall.EISDIR
		case !n.dir() && directory:
			return syscall.ENOTDIR
		case len(n.kids) > 0:
			return syscall.ENOTEMPTY
		}
		d.rename(change{node: n, from: dir, fromName: name})
		return 0
	})
}

func (d *Disk) move(from *node, fromName string, to *node, toName string, replace bool) syscall.Errno {
	d.mu.Lock()
	op := Op{Kind: OpRename, To: path.Join(to.path(), toName)}
	d.mu.Unlock()
	return d.do(op, from, fromName, func(*Op) syscall.Errno {
		n, old := from.kids[fromName], to.kids[toName]
		switch {
		case n == nil:
			return syscall.ENOENT
		case old == n:
			return 0
		case old != nil && !replace:
			return syscall.EEXIST
		case old != nil && (old.dir() || n.dir()):
			return syscall.EISDIR
		}
		d.rename(change{node: n, from: from, fromName: fromName, to: to, toName: toName})
		return 0
	})
}

func (d *Disk) write(n *node, b []byte, off int64) syscall.Errno {
	return d.do(Op{Kind: OpWrite, Len: len(b)}, n, "", func(*Op) syscall.Errno {
		w := write{off: off, data: slices.Clone(b)} // the kernel's buffer is used again
		n.data = w.apply(n.data)
		n.pending = append(n.pending, w)
		n.mtime = time.Now()
		return 0
	})
}

// resize changes the size of a file; grow leaves a larger one alone.
func (d *Disk) resize(n *node, size int64, grow bool) syscall.Errno {
	return d.do(Op{Kind: OpResize}, n, "", func(*Op) syscall.Errno {
		if size == int64(len(n.data)) || grow && size < int64(len(n.data)) {
			return 0
		}
		w := write{off: size}
		n.data = w.apply(n.data)
		n.pending = append(n.pending, w)
		n.mtime = time.Now()
		return 0
	})
}

func (d *Disk) sync(n *node) syscall.Errno {
	op, began := Op{Kind: OpSync}, time.Now()
	if n.dir() {
		op.Kind = OpSyncDir
	}
	return d.do(op, n, "", func(op *Op) syscall.Errno {
		switch {
		case d.deaf != nil && d.deaf(*op):
		case n.dir():
			d.syncDir(n)
		default:
			for i := range n.pending {
				n.stable = n.pending[i].apply(n.stable)
			}
			n.pending = nil
			d.synced[op.Path] = began
		}
		return 0
	})
}

// syncDir makes the names in a directory durable, and with a rename from or to
// another directory also what happened there before it.
func (d *Disk) syncDir(dir *node) {
	touched := map[*node]bool{dir: true}
	durable := make([]bool, len(d.changes))
	for i := len(d.changes) - 1; i >= 0; i-- {
		c := &d.changes[i]
		if !touched[c.from] && !touched[c.to] {
			continue
		}
		durable[i] = true
		for _, t := range []*node{c.from, c.to} {
			if t != nil {
				touched[t] = true
			}
		}
	}
	rest := d.changes[:0]
	for i := range d.changes {
		if durable[i] {
			d.changes[i].apply()
		} else {
			rest = append(rest, d.changes[i])
		}
	}
	clear(d.changes[len(rest):])
	d.changes = rest
}

// apply carries the write out on the content of a file.
func (w *write) apply(b []byte) []byte {
	size := int64(len(b))
	if w.data == nil {
		if w.off <= size {
			return b[:w.off:w.off]
		}
		return append(b, make([]byte, w.off-size)...)
	}
	if end := w.off + int64(len(w.data)); end > size {
		b = append(b, make([]byte, end-size)...)
	}
	copy(b[w.off:], w.data)
	return b
}
