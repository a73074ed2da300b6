package retain

import (
	"slices"
	"sort"
)

// compare compares topics in level order: like strings.Compare, but with '/'
// before every other byte.
func compare(a, b string) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] == b[i] {
			continue
		}
		if a[i] == '/' || b[i] != '/' && a[i] < b[i] {
			return -1
		}
		return 1
	}
	return len(a) - len(b)
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
func (b bound) before(topic string) bool {
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

// pageMax is the number of items in a full page.
const pageMax = 256

// An order is a list of items sorted by topic. No page is empty.
type order struct {
	pages [][]*item
}

// A place is the position of an item in an order.
type place struct{ page, i int }

// at returns the item at p, nil if p is the end.
func (o *order) at(p place) *item {
	if p.page == len(o.pages) {
		return nil
	}
	return o.pages[p.page][p.i]
}

// next returns the place after p, which is not the end.
func (o *order) next(p place) place {
	if p.i++; p.i == len(o.pages[p.page]) {
		return place{p.page + 1, 0}
	}
	return p
}

// seek returns the place of the first item that is not before b, the end if
// there is none.
func (o *order) seek(b bound) place {
	// The last page whose first item is before b holds the place, or ends
	// right in front of it.
	n := sort.Search(len(o.pages), func(i int) bool { return !b.before(o.pages[i][0].topic) })
	if n == 0 {
		return place{}
	}
	return o.within(place{n - 1, 0}, b)
}

// seekFrom is seek for a b that lies behind the item at p. Near places are
// found sooner.
func (o *order) seekFrom(p place, b bound) place {
	page := o.pages[p.page]
	if b.before(page[len(page)-1].topic) {
		return o.seek(b)
	}
	// Double the distance until the place has been passed.
	lo, step := p.i, 1
	for lo+step < len(page) && b.before(page[lo+step].topic) {
		lo += step
		step *= 2
	}
	return o.within(place{p.page, lo}, b)
}

// within searches b from p to the end of p's page; the item at p is before b.
func (o *order) within(p place, b bound) place {
	page := o.pages[p.page][p.i:]
	i := sort.Search(len(page), func(i int) bool { return !b.before(page[i].topic) })
	if p.i+i == len(o.pages[p.page]) {
		return place{p.page + 1, 0}
	}
	return place{p.page, p.i + i}
}

// insert adds an item whose topic is not in the order.
func (o *order) insert(it *item) {
	if len(o.pages) == 0 {
		o.pages = append(o.pages, []*item{it})
		return
	}
	p := o.seek(bound{kind: atLeast, base: it.topic})
	if p.i == 0 && p.page > 0 { // in front of a page: at the end of the one before
		p = place{p.page - 1, len(o.pages[p.page-1])}
	}
	page := o.pages[p.page]
	if len(page) < pageMax {
		o.pages[p.page] = slices.Insert(page, p.i, it)
		return
	}
	// Split. Appending to the last page leaves it full: topics often come in
	// order, from a snapshot for instance.
	cut := pageMax / 2
	if p.page == len(o.pages)-1 && p.i == pageMax {
		cut = pageMax
	}
	right := make([]*item, 0, pageMax)
	right = append(right, page[cut:]...)
	if p.i >= cut {
		right = slices.Insert(right, p.i-cut, it)
	}
	clear(page[cut:])
	page = page[:cut]
	if p.i < cut {
		page = slices.Insert(page, p.i, it)
	}
	o.pages[p.page] = page
	o.pages = slices.Insert(o.pages, p.page+1, right)
}

// remove takes out an item that is in the order.
func (o *order) remove(it *item) {
	p := o.seek(bound{kind: atLeast, base: it.topic})
	page := slices.Delete(o.pages[p.page], p.i, p.i+1)
	o.pages[p.page] = page
	switch {
	case len(page) == 0:
		o.pages = slices.Delete(o.pages, p.page, p.page+1)
	case p.page > 0 && len(o.pages[p.page-1])+len(page) <= pageMax/2:
		o.merge(p.page - 1)
	case p.page+1 < len(o.pages) && len(page)+len(o.pages[p.page+1]) <= pageMax/2:
		o.merge(p.page)
	}
}

// merge joins page i and the one behind it.
func (o *order) merge(i int) {
	o.pages[i] = append(o.pages[i], o.pages[i+1]...)
	o.pages = slices.Delete(o.pages, i+1, i+2)
}
