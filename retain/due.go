package retain

// A dueHeap is a binary heap of the items with a deadline: the earliest on top,
// of equal ones the first in level order. item.due is the position + 1.
type dueHeap []*item

func (h dueHeap) less(i, j int) bool {
	a, b := h[i], h[j]
	if a.entry.Deadline != b.entry.Deadline {
		return a.entry.Deadline < b.entry.Deadline
	}
	return compare(a.topic, b.topic) < 0
}

func (h dueHeap) swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].due, h[j].due = int32(i+1), int32(j+1)
}

// update puts an item whose deadline has changed into its place: in, out, up
// or down.
func (h *dueHeap) update(it *item) {
	switch {
	case it.entry.Deadline == 0:
		h.remove(it)
	case it.due == 0:
		*h = append(*h, it)
		it.due = int32(len(*h))
		h.up(len(*h) - 1)
	default:
		h.fix(int(it.due - 1))
	}
}

// remove takes an item out, if it is in.
func (h *dueHeap) remove(it *item) {
	if it.due == 0 {
		return
	}
	i, last := int(it.due-1), len(*h)-1
	h.swap(i, last)
	(*h)[last] = nil
	*h = (*h)[:last]
	it.due = 0
	if i < last {
		h.fix(i)
	}
}

func (h dueHeap) fix(i int) {
	h.up(i)
	h.down(i)
}

func (h dueHeap) up(i int) {
	for i > 0 {
		parent := (i - 1) / 2
		if !h.less(i, parent) {
			return
		}
		h.swap(i, parent)
		i = parent
	}
}

func (h dueHeap) down(i int) {
	for {
		kid := 2*i + 1
		if kid+1 < len(h) && h.less(kid+1, kid) {
			kid++
		}
		if kid >= len(h) || !h.less(kid, i) {
			return
		}
		h.swap(i, kid)
		i = kid
	}
}
