package bbolt

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"iter"

	"github.com/wind-c/comqtt/v3/backends"
)

// The page format of bbolt (format version 2, native byte order), as far as
// this package reads it by itself: to check a file before bbolt maps it, since
// bbolt trusts its pages, and to say at which offset a file is damaged.
//
//	page          id u64 | flags u16 | count u16 | overflow u32 | elements | data
//	branch (1)    element: pos u32 | key size u32 | child u64
//	leaf (2)      element: flags u32 | pos u32 | key size u32 | value size u32
//	meta (4)      magic u32 | version u32 | page size u32 | flags u32 | root u64 |
//	              sequence u64 | free list u64 | pages u64 | txid u64 | FNV-1a u64
//	free list (16) ids u64 …; if count is 0xFFFF the first word is the count
//	bucket value  root u64 | sequence u64 | (root 0: an inline leaf page)
//
// pos counts from the start of its element. overflow is the number of pages
// that follow and belong to this one.
const (
	pageHeader  = 16
	elementSize = 16

	flagBranch   = 1
	flagLeaf     = 2
	flagMeta     = 4
	flagFreelist = 16

	leafBucket = 1 // flag of a leaf element

	metaMagic   = 0xED0CDAED
	metaVersion = 2
	metaLen     = 64
	noFreelist  = 1<<64 - 1
	bigCount    = 0xFFFF

	minPage = 1 << 10
	maxPage = 16 << 20
)

// meta is a decoded meta page.
type meta struct {
	pageSize int
	root     uint64 // page of the root bucket
	freelist uint64 // first page of the free list
	pages    uint64 // number of pages in use: the high-water mark
	txid     uint64
}

var (
	errNoMagic  = errors.New("not a bbolt file")
	errMetaSum  = errors.New("meta page has a wrong checksum")
	errMetaForm = errors.New("meta page makes no sense")
)

// decodeMeta decodes a meta page that starts with its page header.
func decodeMeta(page []byte) (meta, error) {
	if len(page) < pageHeader+metaLen {
		return meta{}, errNoMagic
	}
	b, ne := page[pageHeader:pageHeader+metaLen], binary.NativeEndian
	if ne.Uint32(b) != metaMagic {
		return meta{}, errNoMagic
	}
	if v := ne.Uint32(b[4:]); v != metaVersion {
		return meta{}, fmt.Errorf("bbolt format %d, this version knows %d: %w", v, metaVersion, backends.ErrSchema)
	}
	h := fnv.New64a()
	h.Write(b[:metaLen-8])
	if h.Sum64() != ne.Uint64(b[metaLen-8:]) {
		return meta{}, errMetaSum
	}
	m := meta{
		pageSize: int(ne.Uint32(b[8:])),
		root:     ne.Uint64(b[16:]),
		freelist: ne.Uint64(b[32:]),
		pages:    ne.Uint64(b[40:]),
		txid:     ne.Uint64(b[48:]),
	}
	if m.pageSize < minPage || m.pageSize > maxPage || m.pageSize&(m.pageSize-1) != 0 ||
		m.root < 2 || m.root >= m.pages || m.freelist >= m.pages && m.freelist != noFreelist {
		return meta{}, errMetaForm
	}
	return m, nil
}

// readMeta finds the meta page that counts: the valid one with the higher
// transaction id. The other one is that of the transaction before, or was torn
// by a crash.
func readMeta(f io.ReaderAt, size int64) (meta, error) {
	var buf [pageHeader + metaLen]byte
	read := func(off int64) (meta, error) {
		if off+int64(len(buf)) > size {
			return meta{}, errNoMagic
		}
		if _, err := f.ReadAt(buf[:], off); err != nil {
			return meta{}, fmt.Errorf("read meta page: %w", err)
		}
		return decodeMeta(buf[:])
	}
	m0, err0 := read(0)
	if err0 == nil {
		if m1, err := read(int64(m0.pageSize)); err == nil && m1.txid > m0.txid {
			return m1, nil
		}
		return m0, nil
	}
	for ps := int64(minPage); ps <= maxPage; ps <<= 1 {
		if m1, err := read(ps); err == nil && int64(m1.pageSize) == ps {
			return m1, nil
		}
	}
	return meta{}, err0
}

// element is one entry of a branch or leaf page. Slices alias the page.
type element struct {
	key   []byte
	val   []byte // of a leaf
	flags uint32 // of a leaf
	child uint64 // of a branch

	start, end int // where key and value lie in the page
}

// page is a branch or leaf page in memory.
type page struct {
	buf   []byte
	leaf  bool
	count int
}

var (
	errElement = errors.New("an element points outside its page")
	errPacking = errors.New("an element does not begin where the one before ends")
	errKeySize = errors.New("an element has no key or a key of impossible size")
)

// element decodes element i. It trusts nothing.
func (p *page) element(i int) (e element, err error) {
	at := pageHeader + i*elementSize
	if at+elementSize > len(p.buf) {
		return e, errElement
	}
	b, ne := p.buf[at:], binary.NativeEndian
	var pos, ksize, vsize uint64
	if p.leaf {
		e.flags = ne.Uint32(b)
		pos, ksize, vsize = uint64(ne.Uint32(b[4:])), uint64(ne.Uint32(b[8:])), uint64(ne.Uint32(b[12:]))
	} else {
		pos, ksize = uint64(ne.Uint32(b)), uint64(ne.Uint32(b[4:]))
		e.child = ne.Uint64(b[8:])
	}
	if ksize == 0 || ksize > backends.MaxPlainKey*2 {
		return e, errKeySize
	}
	if pos < elementSize || pos+ksize+vsize > uint64(len(b)) {
		return e, errElement
	}
	e.key = b[pos : pos+ksize]
	e.val = b[pos+ksize : pos+ksize+vsize]
	e.start, e.end = at+int(pos), at+int(pos+ksize+vsize)
	return e, nil
}

// elements yields all elements. bbolt packs their data without gaps, from the
// end of the element table on, so that the first position vouches for the count
// and every other one for the sizes before it.
func (p *page) elements() iter.Seq2[element, error] {
	return func(yield func(element, error) bool) {
		next := pageHeader + p.count*elementSize
		for i := range p.count {
			e, err := p.element(i)
			if err == nil && e.start != next {
				err = errPacking
			}
			if !yield(e, err) || err != nil {
				return
			}
			next = e.end
		}
	}
}

// used returns how many bytes of the page its elements need, as their table,
// which buf holds, says: without elements, the header.
func (p *page) used() uint64 {
	n, ne := uint64(pageHeader), binary.NativeEndian
	for i := range p.count {
		at := pageHeader + i*elementSize
		e, end := p.buf[at:], uint64(at)
		if p.leaf {
			end += uint64(ne.Uint32(e[4:])) + uint64(ne.Uint32(e[8:])) + uint64(ne.Uint32(e[12:]))
		} else {
			end += uint64(ne.Uint32(e)) + uint64(ne.Uint32(e[4:]))
		}
		n = max(n, end)
	}
	return n
}

// bitmap is a set of page ids.
type bitmap []uint64

func newBitmap(n uint64) bitmap { return make(bitmap, (n+63)/64) }

func (b bitmap) has(id uint64) bool { return b[id/64]&(1<<(id%64)) != 0 }

func (b bitmap) add(id uint64) { b[id/64] |= 1 << (id % 64) }

// within says whether min ≤ key < max; nil bounds are open.
func within(key, lo, hi []byte) bool {
	return (lo == nil || bytes.Compare(lo, key) <= 0) && (hi == nil || bytes.Compare(key, hi) < 0)
}
