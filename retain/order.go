package retain

import (
	"math/bits"
	"slices"
	"sort"
)

// compare compares topics in level order: like strings.Compare, but with '/'
// before every other byte.
func compare(a, b string) int {
	n := min(len(a), len(b))
	i := 0
	for ; i+8 <= n; i += 8 {
		if x := word(a[i:i+8]) ^ word(b[i:i+8]); x != 0 {
			i += bits.TrailingZeros64(x) / 8
			return compareBytes(a[i], b[i])
		}
	}
	for ; i < n; i++ {
		if a[i] != b[i] {
			return compareBytes(a[i], b[i])
		}
	}
	return len(a) - len(b)
}

// compareBytes compares different bytes.
func compareBytes(a, b byte) int {
	if a == '/' || b != '/' && a < b {
		return -1
	}
	return 1
}

// word returns the 8 bytes of s, first byte lowest. It compiles to one load.
func word(s string) uint64 {
	_ = s[7]
	return uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24 |
		uint64(s[4])<<32 | uint64(s[5])<<40 | uint64(s[6])<<48 | uint64(s[7])<<56
}

// A bound is a place in the order of topics.
type bound struct {
	kind boundKind
	// The place is given by base, or base followed by rest: two strings, so
	// that a topic's beginning and a filter's level need not be joined.
	base, rest string
}

type boundKind byte

const (
	atLeast boundKind = iota // at base+rest, or else behind it
	behind                   // behind the topic base
	past                     // behind the topic base and everything below it
)

// before reports whether topic lies before the place b.
func (b *bound) before(topic string) bool {
	n := min(len(topic), len(b.base))
	if c := compare(topic[:n], b.base[:n]); c != 0 {
		return c < 0
	}
	if n < len(b.base) {
		return true // a beginning of base
	}
	tail := topic[n:]
	switch b.kind {
	case atLeast:
		return compare(tail, b.rest) < 0
	case behind:
		return tail == ""
	default:
		return tail == "" || tail[0] == '/'
	}
}

// pageMax is the number of items in a full page: few enough that an insertion
// moves little, enough that the list of pages stays short.
const pageMax = 128

// A page is a run of an order, never empty.
type page struct {
	low   string // topic of the first item, kept near for the search
	items []*item
}

// An order is a list of items sorted by topic.
type order struct {
	pages []page
}

// A place is the position of an item in an order.
type place struct{ page, i int }

// at returns the item at p, nil if p is the end.
func (o *order) at(p place) *item {
	if p.page == len(o.pages) {
		return nil
	}
	return o.pages[p.page].items[p.i]
}

// next returns the place after p, which is not the end.
func (o *order) next(p place) place {
	if p.i++; p.i == len(o.pages[p.page].items) {
		return place{p.page + 1, 0}
	}
	return p
}

// seek returns the place of the first item that is not before b, the end if
// there is none.
func (o *order) seek(b bound) place { return o.seekPages(0, len(o.pages), &b) }

// seekPages is seek if the place is not before page lo and not behind the
// beginning of page hi.
func (o *order) seekPages(lo, hi int, b *bound) place {
	// The last page that begins before b holds the place, or ends right in
	// front of it.
	n := lo + sort.Search(hi-lo, func(i int) bool { return !b.before(o.pages[lo+i].low) })
	if n == lo {
		return place{n, 0}
	}
	return o.seekItems(n-1, 0, len(o.pages[n-1].items), b)
}

// seekItems is seek if the place is in the page from lo to hi. Behind the last
// item of a page is the first of the next.
func (o *order) seekItems(page, lo, hi int, b *bound) place {
	items := o.pages[page].items
	i := lo + sort.Search(hi-lo, func(i int) bool { return !b.before(items[lo+i].topic) })
	if i == len(items) {
		return place{page + 1, 0}
	}
	return place{page, i}
}

// seekFrom is seek for a place behind p. The next place of a walk is usually
// near: the search doubles its steps until it has gone too far.
func (o *order) seekFrom(p place, b bound) place {
	items := o.pages[p.page].items
	if b.before(items[len(items)-1].topic) {
		lo, hi, step := p.page+1, p.page+1, 1
		for hi < len(o.pages) && b.before(o.pages[hi].low) {
			lo, hi = hi, hi+step
			step *= 2
		}
		return o.seekPages(lo, min(hi, len(o.pages)), &b)
	}
	lo, hi, step := p.i+1, p.i+1, 1
	for hi < len(items) && b.before(items[hi].topic) {
		lo, hi = hi+1, hi+1+step
		step *= 2
	}
	return o.seekItems(p.page, lo, min(hi, len(items)), &b)
}

// insert adds an item whose topic is not in the order.
func (o *order) insert(it *item) {
	if len(o.pages) == 0 {
		o.pages = append(o.pages, page{it.topic, []*item{it}})
		return
	}
	p := o.seek(bound{kind: atLeast, base: it.topic})
	if p.i == 0 && p.page > 0 { // in front of a page: at the end of the one before
		p = place{p.page - 1, len(o.pages[p.page-1].items)}
	}
	if len(o.pages[p.page].items) == pageMax {
		o.split(p)
		if n := len(o.pages[p.page].items); p.i > n || p.i == pageMax {
			p = place{p.page + 1, p.i - n}
		}
	}
	pg := &o.pages[p.page]
	pg.items = slices.Insert(pg.items, p.i, it)
	pg.low = pg.items[0].topic
}

// split makes two pages of the full one that p is in. A page that is appended
// to stays full: topics often come in order, from a snapshot for instance.
func (o *order) split(p place) {
	left := &o.pages[p.page]
	cut := pageMax / 2
	if p.i == pageMax && p.page == len(o.pages)-1 {
		cut = pageMax
	}
	items := make([]*item, 0, pageMax)
	items = append(items, left.items[cut:]...)
	clear(left.items[cut:])
	left.items = left.items[:cut]
	right := page{items: items}
	if len(items) > 0 {
		right.low = items[0].topic
	}
	o.pages = slices.Insert(o.pages, p.page+1, right)
}

// remove takes out an item that is in the order.
func (o *order) remove(it *item) {
	p := o.seek(bound{kind: atLeast, base: it.topic})
	pg := &o.pages[p.page]
	pg.items = slices.Delete(pg.items, p.i, p.i+1)
	if len(pg.items) == 0 {
		o.pages = slices.Delete(o.pages, p.page, p.page+1)
		return
	}
	pg.low = pg.items[0].topic
	if !o.merge(p.page - 1) {
		o.merge(p.page)
	}
}

// merge joins page i and the one behind it if both exist and are sparse.
func (o *order) merge(i int) bool {
	if i < 0 || i+1 >= len(o.pages) || len(o.pages[i].items)+len(o.pages[i+1].items) > pageMax/2 {
		return false
	}
	o.pages[i].items = append(o.pages[i].items, o.pages[i+1].items...)
	o.pages = slices.Delete(o.pages, i+1, i+2)
	return true
}
