package topic

// chunkLen is the number of elements of an arena allocated at once.
const chunkLen = 256

// An arena hands out elements by number, in place of pointers: numbers need
// half the space and are nothing to the garbage collector. It grows by a chunk
// at a time and never moves an element, so that growing costs the same at any
// size and a pointer to an element is good until its release. The memory of a
// chunk without live elements is given back. Number 0 is taken from the start:
// users read it as "none".
type arena[T any] struct {
	chunks []*[chunkLen]T
	live   []uint16 // live elements of each chunk
	free   []uint32 // released numbers, last one is used next
	top    uint32   // numbers from here on have never been used
	used   int      // live elements, number 0 included
}

// newArena returns an arena with element 0 in use.
func newArena[T any]() arena[T] {
	var a arena[T]
	a.alloc()
	return a
}

// alloc returns the number of a zero element.
func (a *arena[T]) alloc() uint32 {
	var id uint32
	if n := len(a.free); n > 0 {
		id = a.free[n-1]
		a.free = a.free[:n-1]
	} else {
		id = a.top
		a.top++
	}
	c := int(id / chunkLen)
	if c == len(a.chunks) {
		a.chunks = append(a.chunks, nil)
		a.live = append(a.live, 0)
	}
	if a.chunks[c] == nil {
		a.chunks[c] = new([chunkLen]T)
	}
	a.live[c]++
	a.used++
	return id
}

// at returns the element of a live number.
func (a *arena[T]) at(id uint32) *T {
	return &a.chunks[id/chunkLen][id%chunkLen]
}

// release gives an element back and zeroes it.
func (a *arena[T]) release(id uint32) {
	var zero T
	*a.at(id) = zero
	c := id / chunkLen
	a.live[c]--
	a.used--
	if a.live[c] == 0 {
		a.chunks[c] = nil
	}
	a.free = append(a.free, id)
	if a.used == 1 && a.top > chunkLen { // all but number 0: forget the numbers as well
		a.chunks = []*[chunkLen]T{a.chunks[0]}
		a.live = []uint16{a.live[0]}
		a.free, a.top = nil, 1
	}
}
