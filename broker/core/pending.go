package core

import (
	"cmp"
	"slices"

	"github.com/wind-c/comqtt/v3/wal/record"
)

// pending is a message of a group without a durable owner, at the place of
// its id.
type pending struct {
	message uint64
	epoch   record.Epoch // ephemeral connection that delivers it, 0 = waits
	qos     uint8        // of that delivery
}

// pendingPage is the number of messages in a full page of a pendingList.
const pendingPage = 128

// pendingList is ordered by message id. It is cut into pages, so that a
// message that comes back to its old place moves no more than one page's
// worth. No page is empty.
type pendingList struct {
	pages [][]pending
	len   int
	idle  int // those that wait
}

// pendingAt is a place in a pendingList.
type pendingAt struct{ page, i int }

func (l *pendingList) start() pendingAt { return pendingAt{} }

func (l *pendingList) at(p pendingAt) *pending { return &l.pages[p.page][p.i] }

// find returns the place of a message, or that where it belongs.
func (l *pendingList) find(id uint64) (pendingAt, bool) {
	page, found := slices.BinarySearchFunc(l.pages, id, func(p []pending, id uint64) int { return cmp.Compare(p[0].message, id) })
	if found {
		return pendingAt{page, 0}, true
	}
	if page == 0 {
		return pendingAt{}, false
	}
	i, found := slices.BinarySearchFunc(l.pages[page-1], id, func(p pending, id uint64) int { return cmp.Compare(p.message, id) })
	return pendingAt{page - 1, i}, found
}

// insert adds a message that is not in the list.
func (l *pendingList) insert(p pending) {
	l.len++
	if p.epoch == 0 {
		l.idle++
	}
	if len(l.pages) == 0 {
		l.pages = append(l.pages, []pending{p})
		return
	}
	at, _ := l.find(p.message)
	page := l.pages[at.page]
	if len(page) < pendingPage {
		l.pages[at.page] = slices.Insert(page, at.i, p)
		return
	}
	if at.i == pendingPage { // messages mostly come in order: full pages stay full
		l.pages = slices.Insert(l.pages, at.page+1, append(make([]pending, 0, pendingPage), p))
		return
	}
	right := append(make([]pending, 0, pendingPage), page[pendingPage/2:]...)
	page = page[:pendingPage/2]
	if at.i <= len(page) {
		page = slices.Insert(page, at.i, p)
	} else {
		right = slices.Insert(right, at.i-len(page), p)
	}
	l.pages[at.page] = page
	l.pages = slices.Insert(l.pages, at.page+1, right)
}

func (l *pendingList) remove(at pendingAt) pending {
	p := *l.at(at)
	l.len--
	if p.epoch == 0 {
		l.idle--
	}
	if page := slices.Delete(l.pages[at.page], at.i, at.i+1); len(page) > 0 {
		l.pages[at.page] = page
	} else {
		l.pages = slices.Delete(l.pages, at.page, at.page+1)
	}
	return p
}

// own gives a message to an ephemeral connection, or with epoch 0 takes it
// back.
func (l *pendingList) own(at pendingAt, epoch record.Epoch, qos uint8) {
	p := l.at(at)
	if p.epoch == 0 {
		l.idle--
	}
	if epoch == 0 {
		l.idle++
	}
	p.epoch, p.qos = epoch, qos
}

// each calls fn for the messages in order until it returns false. fn may
// change the owner of the one it is called with.
func (l *pendingList) each(fn func(at pendingAt, p *pending) bool) {
	for i := range l.pages {
		for j := range l.pages[i] {
			if !fn(pendingAt{i, j}, &l.pages[i][j]) {
				return
			}
		}
	}
}

// oldestIdle returns the place of the first message that waits; there is one.
func (l *pendingList) oldestIdle() (found pendingAt) {
	l.each(func(at pendingAt, p *pending) bool {
		found = at
		return p.epoch != 0
	})
	return found
}
