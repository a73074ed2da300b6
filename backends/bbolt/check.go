package bbolt

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"math/bits"
	"sync"
	"sync/atomic"

	"github.com/wind-c/comqtt/v3/backends"
)

const (
	maxFindings = 64 // after this many a check stops
	maxDepth    = 32 // levels of a tree; 4 hold a billion pairs
	maxPageUse  = backends.MaxValue + 1<<20
)

// errEnough ends a check that found enough.
var errEnough = errors.New("too many findings")

// checker walks the pages of a file by reading, not mapping, them: an I/O error
// is an error, and no page can lead it outside the file or in circles.
type checker struct {
	ctx  context.Context
	f    io.ReaderAt
	path string
	size int64
	meta meta

	// deep reads all leaves and verifies all seals. Otherwise the tree is
	// walked down to the ids of its leaves.
	deep bool

	used  bitmap   // pages that something refers to
	bufs  [][]byte // one page buffer a level
	found []error
	pages int
	// format is what the check saw of the driver's own keys.
	format bool
	// buckets are the trees below the root bucket, still to be checked.
	buckets []bucketTree

	win struct { // the part of the file that was read last
		at   int64
		b    []byte
		last uint64 // page
	}
}

// bucketTree is the tree of one table.
type bucketTree struct {
	root  uint64
	level int
	table byte
}

// newChecker returns a checker for the state that the meta pages show.
func newChecker(ctx context.Context, f io.ReaderAt, path string, size int64) (*checker, error) {
	c := &checker{ctx: ctx, f: f, path: path, size: size}
	var err error
	if c.meta, err = readMeta(f, size); err != nil {
		return nil, c.metaError(err)
	}
	if need := c.meta.pages * uint64(c.meta.pageSize); uint64(size) < need {
		return nil, &backends.CorruptError{
			Store: path, Offset: size,
			Err: fmt.Errorf("file has %d bytes, its pages need %d", size, need),
		}
	}
	c.used = newBitmap(c.meta.pages)
	c.used.add(0)
	c.used.add(1)
	return c, nil
}

// check examines the file and returns the findings, joined: each a
// *backends.CorruptError, or one error that is ErrNotStore or ErrSchema, or the
// error of ctx.
func (c *checker) check() error {
	err := c.tree(c.meta.root, 0, scope{root: true})
	if err == nil {
		err = c.tables()
	}
	if err == nil && !c.format && len(c.found) == 0 {
		err = fmt.Errorf("bbolt: check %s: no %q in it: %w", c.path, formatKey, backends.ErrNotStore)
	}
	if err == nil {
		err = c.freelist()
	}
	if err != nil && !errors.Is(err, errEnough) {
		return err
	}
	return errors.Join(c.found...)
}

// tables checks the trees of the tables, two at a time: it is most of the time that opening a file takes.
func (c *checker) tables() error {
	parts := make([]checker, len(c.buckets))
	errs := make([]error, len(c.buckets))
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(checkers, len(parts)) {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(parts); i = int(next.Add(1)) - 1 {
				t := c.buckets[i]
				parts[i] = checker{ctx: c.ctx, f: c.f, path: c.path, size: c.size, meta: c.meta, deep: c.deep, used: newBitmap(c.meta.pages)}
				errs[i] = parts[i].tree(t.root, t.level, scope{table: t.table})
			}
		})
	}
	wg.Wait()
	for i := range parts {
		if err := errors.Join(errs[i], c.take(&parts[i])); err != nil {
			return err
		}
	}
	return nil
}

// checkers is how many tables are checked at a time.
const checkers = 2

// take adds what the checker of a part found.
func (c *checker) take(part *checker) error {
	c.format = c.format || part.format
	c.found = append(c.found, part.found...)
	if len(c.found) >= maxFindings {
		c.found = c.found[:maxFindings]
		return errEnough
	}
	for at := range part.used {
		for twice := part.used[at] & c.used[at]; twice != 0; twice &= twice - 1 {
			if err := c.badPage(uint64(at*64+bits.TrailingZeros64(twice)), "used twice"); err != nil {
				return err
			}
		}
		c.used[at] |= part.used[at]
	}
	return nil
}

// info counts the free pages.
func (c *checker) info() (Info, error) {
	free := 0
	if c.meta.freelist != noFreelist {
		ids, err := c.readFreelist(c.meta.freelist)
		if err = errors.Join(err, errors.Join(c.found...)); err != nil {
			return Info{}, err
		}
		free = len(ids) / 8
	}
	page := int64(c.meta.pageSize)
	return Info{
		FileBytes: c.size,
		UsedBytes: (int64(c.meta.pages) - int64(free)) * page,
		FreeBytes: int64(free) * page,
	}, nil
}

// metaError sorts out why no meta page could be read.
func (c *checker) metaError(err error) error {
	switch {
	case errors.Is(err, backends.ErrSchema):
		return fmt.Errorf("bbolt: check %s: %w", c.path, err)
	case errors.Is(err, errNoMagic) && c.size > 0:
		// Two rotten meta pages look like a foreign file. Saying "not a store"
		// is right for both: nothing is served, nothing is overwritten.
		return fmt.Errorf("bbolt: check %s: %w: %w", c.path, backends.ErrNotStore, err)
	}
	return &backends.CorruptError{Store: c.path, Offset: 0, Err: err}
}

// bad notes a finding and returns errEnough if there are enough of them.
func (c *checker) bad(off int64, key []byte, err error) error {
	e := &backends.CorruptError{Store: c.path, Key: bytes.Clone(key), Offset: off, Err: err}
	c.found = append(c.found, e)
	if len(c.found) >= maxFindings {
		return errEnough
	}
	return nil
}

func (c *checker) badPage(id uint64, format string, args ...any) error {
	off := int64(-1)
	if id < math.MaxInt64/uint64(c.meta.pageSize) {
		off = int64(id) * int64(c.meta.pageSize)
	}
	return c.bad(off, nil, fmt.Errorf("page %d: %w", id, fmt.Errorf(format, args...)))
}

// claim marks the pages from id as used and returns false if one is out of
// range or used already, which it notes.
func (c *checker) claim(id, n uint64) (bool, error) {
	if id < 2 || id >= c.meta.pages || n > c.meta.pages-id {
		return false, c.badPage(id, "%d pages from here, the file has %d", n, c.meta.pages)
	}
	for i := id; i < id+n; i++ {
		if c.used.has(i) {
			return false, c.badPage(i, "used twice")
		}
		c.used.add(i)
	}
	return true, nil
}

// scope is what must hold for the keys of a subtree.
type scope struct {
	root   bool   // the root bucket: all elements are buckets
	table  byte   // the first byte of all keys otherwise
	lo, hi []byte // bounds, nil = open
}

// tree checks the subtree at page id. level picks the buffer.
func (c *checker) tree(id uint64, level int, sc scope) error {
	if c.pages++; c.pages%256 == 0 && c.ctx.Err() != nil {
		return c.ctx.Err()
	}
	if level >= maxDepth {
		return c.badPage(id, "tree deeper than %d levels", maxDepth)
	}
	p, err := c.load(id, level)
	if p == nil || err != nil {
		return err
	}
	if p.count == 0 {
		return c.badPage(id, "no elements") // bbolt keeps empty buckets inline
	}
	if p.leaf {
		return c.leaf(id, p, level, sc)
	}
	return c.branch(id, p, level, sc)
}

// load claims and reads the page. It returns nil after noting what is wrong.
func (c *checker) load(id uint64, level int) (*page, error) {
	if ok, err := c.claim(id, 1); !ok {
		return nil, err
	}
	for len(c.bufs) <= level {
		c.bufs = append(c.bufs, make([]byte, c.meta.pageSize))
	}
	buf, off := c.bufs[level], int64(id)*int64(c.meta.pageSize)
	if err := c.read(id, buf, off); err != nil {
		return nil, c.badPage(id, "read: %w", err)
	}
	ne := binary.NativeEndian
	flags, count, overflow := ne.Uint16(buf[8:]), int(ne.Uint16(buf[10:])), uint64(ne.Uint32(buf[12:]))
	if got := ne.Uint64(buf); got != id {
		return nil, c.badPage(id, "calls itself %d", got)
	}
	if flags != flagBranch && flags != flagLeaf {
		return nil, c.badPage(id, "not a branch or leaf page: flags %#x", flags)
	}
	if overflow > 0 {
		if ok, err := c.claim(id+1, overflow); !ok {
			return nil, err
		}
	}
	p := &page{buf: buf, leaf: flags == flagLeaf, count: count}
	return c.rest(id, p, (overflow+1)*uint64(c.meta.pageSize))
}

// windowPages is how many pages are read at once when they come in order.
const windowPages = 16

// read reads a page. Most were written in order, and are read so.
func (c *checker) read(id uint64, buf []byte, off int64) error {
	w := &c.win
	if off < w.at || off+int64(len(buf)) > w.at+int64(len(w.b)) {
		n := len(buf)
		if id == w.last+1 {
			n = int(min(windowPages, c.meta.pages-id)) * len(buf)
		}
		if cap(w.b) < n {
			w.b = make([]byte, windowPages*len(buf))
		}
		w.at, w.b = off, w.b[:n]
		if _, err := c.f.ReadAt(w.b, off); err != nil {
			w.b = w.b[:0]
			return err
		}
	}
	w.last = id
	copy(buf, w.b[off-w.at:])
	return nil
}

// rest reads what of p lies beyond the first page. room is what p may use.
func (c *checker) rest(id uint64, p *page, room uint64) (*page, error) {
	off := int64(id) * int64(c.meta.pageSize)
	table := uint64(pageHeader + p.count*elementSize)
	if table > room {
		return nil, c.badPage(id, "%d elements do not fit", p.count)
	}
	if table > uint64(len(p.buf)) {
		p.buf = make([]byte, table)
		if _, err := c.f.ReadAt(p.buf, off); err != nil {
			return nil, c.badPage(id, "read: %w", err)
		}
	}
	need := max(table, p.used())
	if need > room || need > maxPageUse {
		return nil, c.badPage(id, "elements end at byte %d of %d", need, room)
	}
	if need > uint64(len(p.buf)) {
		p.buf = make([]byte, need)
		if _, err := c.f.ReadAt(p.buf, off); err != nil {
			return nil, c.badPage(id, "read: %w", err)
		}
	}
	return p, nil
}

func (c *checker) branch(id uint64, p *page, level int, sc scope) error {
	leaves := false // the children are leaves that need not be read
	i := -1
	for e, err := range p.elements() {
		if i++; err != nil {
			return c.badPage(id, "element %d: %w", i, err)
		}
		sub := sc
		sub.lo = e.key
		if i+1 < p.count {
			next, err := p.element(i + 1)
			if err != nil {
				return c.badPage(id, "element %d: %w", i+1, err)
			}
			sub.hi = next.key
		}
		if !within(e.key, sc.lo, sc.hi) || sub.hi != nil && bytes.Compare(e.key, sub.hi) >= 0 {
			if err := c.badPage(id, "element %d: key %q out of order", i, e.key); err != nil {
				return err
			}
			continue
		}
		if i == 0 && !c.deep && !sc.root {
			if leaves, err = c.isLeaf(e.child); err != nil {
				return err
			}
		}
		if leaves {
			_, err = c.claim(e.child, 1)
		} else {
			err = c.tree(e.child, level+1, sub)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// isLeaf looks at the header of a page that is not claimed yet. All leaves of a
// tree are on one level.
func (c *checker) isLeaf(id uint64) (bool, error) {
	if id < 2 || id >= c.meta.pages {
		return false, nil // tree reports it
	}
	var h [pageHeader]byte
	if _, err := c.f.ReadAt(h[:], int64(id)*int64(c.meta.pageSize)); err != nil {
		return false, c.badPage(id, "read: %w", err)
	}
	return binary.NativeEndian.Uint16(h[8:]) == flagLeaf, nil
}

func (c *checker) leaf(id uint64, p *page, level int, sc scope) error {
	var last []byte
	i := -1
	for e, err := range p.elements() {
		if i++; err != nil {
			return c.badPage(id, "element %d: %w", i, err)
		}
		if !within(e.key, sc.lo, sc.hi) || last != nil && bytes.Compare(last, e.key) >= 0 {
			if err := c.badPage(id, "element %d: key %q out of order", i, e.key); err != nil {
				return err
			}
		}
		last = e.key
		if sc.root {
			err = c.bucket(id, e, level)
		} else {
			err = c.pair(id, e, sc.table)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// bucket checks one element of the root bucket and the tree below it.
func (c *checker) bucket(id uint64, e element, level int) error {
	if e.flags != leafBucket || len(e.key) != 1 {
		return fmt.Errorf("bbolt: check %s: holds %.64q: %w", c.path, e.key, backends.ErrNotStore)
	}
	if len(e.val) < 16 {
		return c.badPage(id, "bucket %q has no header", e.key)
	}
	sc := scope{table: e.key[0]}
	if root := binary.NativeEndian.Uint64(e.val); root != 0 {
		c.buckets = append(c.buckets, bucketTree{root, level + 1, e.key[0]})
		return nil
	}
	in := &page{buf: e.val[16:], leaf: true}
	if len(in.buf) < pageHeader || binary.NativeEndian.Uint16(in.buf[8:]) != flagLeaf {
		return c.badPage(id, "bucket %q: inline page is no leaf", e.key)
	}
	in.count = int(binary.NativeEndian.Uint16(in.buf[10:]))
	if end := pageHeader + in.count*elementSize; end > len(in.buf) || int(in.used()) != len(in.buf) {
		return c.badPage(id, "bucket %q: inline page has a wrong length", e.key)
	}
	return c.leaf(id, in, level, sc)
}

// pair checks one pair of a table, or one of the driver's own.
func (c *checker) pair(id uint64, e element, table byte) error {
	off := int64(id) * int64(c.meta.pageSize)
	if e.flags != 0 || e.key[0] != table {
		return c.bad(off, e.key, fmt.Errorf("page %d: pair does not belong to table %q", id, table))
	}
	var err error
	switch {
	case table != metaBucket[0]:
		_, _, err = backends.Unseal(e.key, e.val)
	case bytes.Equal(e.key, markKey):
		_, err = backends.DecodeMark(e.val)
	case bytes.Equal(e.key, formatKey):
		c.format = true
		err = checkFormat(e.val)
	}
	if err == nil {
		return nil
	}
	var ce *backends.CorruptError
	if errors.As(err, &ce) {
		return c.bad(off, e.key, fmt.Errorf("page %d: %w", id, ce.Err))
	}
	return fmt.Errorf("bbolt: check %s: %w", c.path, err)
}

// freelist checks that every page is either used or free.
func (c *checker) freelist() error {
	id := c.meta.freelist
	if id == noFreelist {
		return nil // bbolt finds the free pages by itself
	}
	free, err := c.readFreelist(id)
	if free == nil || err != nil {
		return err
	}
	last := uint64(1)
	for i := 0; i < len(free); i += 8 {
		at := binary.NativeEndian.Uint64(free[i:])
		switch {
		case at <= last || at >= c.meta.pages:
			return c.badPage(id, "free list: page %d after %d of %d", at, last, c.meta.pages)
		case c.used.has(at):
			if err := c.badPage(at, "used and free"); err != nil {
				return err
			}
		}
		c.used.add(at)
		last = at
	}
	if !c.deep || len(c.found) > 0 {
		return nil // what was not read may have pages of its own
	}
	for at := range c.meta.pages {
		if !c.used.has(at) {
			if err := c.badPage(at, "neither used nor free"); err != nil {
				return err
			}
		}
	}
	return nil
}

// readFreelist returns the ids of the list as bytes, not nil if it is readable.
func (c *checker) readFreelist(id uint64) ([]byte, error) {
	if ok, err := c.claim(id, 1); !ok {
		return nil, err
	}
	var h [pageHeader + 8]byte
	off := int64(id) * int64(c.meta.pageSize)
	if _, err := c.f.ReadAt(h[:], off); err != nil {
		return nil, c.badPage(id, "read: %w", err)
	}
	ne := binary.NativeEndian
	overflow := uint64(ne.Uint32(h[12:]))
	if ne.Uint64(h[:]) != id || ne.Uint16(h[8:]) != flagFreelist {
		return nil, c.badPage(id, "not the free list")
	}
	if overflow > 0 {
		if ok, err := c.claim(id+1, overflow); !ok {
			return nil, err
		}
	}
	count, skip := uint64(ne.Uint16(h[10:])), int64(0)
	if count == bigCount {
		count, skip = ne.Uint64(h[pageHeader:]), 8
	}
	room := (overflow+1)*uint64(c.meta.pageSize) - pageHeader - uint64(skip)
	if count > room/8 {
		return nil, c.badPage(id, "free list of %d pages does not fit", count)
	}
	ids := make([]byte, count*8)
	if _, err := c.f.ReadAt(ids, off+pageHeader+skip); err != nil {
		return nil, c.badPage(id, "read: %w", err)
	}
	return ids, nil
}
