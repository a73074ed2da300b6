package recovery

// arena holds byte strings in blocks that never move, so that millions of them
// cost the garbage collector nothing. A place is the block's number in the
// upper 32 bits and the offset in the lower.
type arena struct {
	blocks [][]byte // len = bytes in use
	cur    int      // block that grows
}

const (
	arenaBlock = 256 << 10
	arenaKeep  = 16 // blocks kept by reset: 4 MiB
)

// take returns n bytes and their place.
func (a *arena) take(n int) (place uint64, p []byte) {
	for ; a.cur < len(a.blocks); a.cur++ {
		if b := a.blocks[a.cur]; cap(b)-len(b) >= n {
			break
		}
	}
	if a.cur == len(a.blocks) {
		a.blocks = append(a.blocks, make([]byte, 0, max(n, arenaBlock)))
	}
	b := a.blocks[a.cur]
	off := len(b)
	b = b[:off+n]
	a.blocks[a.cur] = b
	return uint64(a.cur)<<32 | uint64(off), b[off : off+n : off+n]
}

// at returns the n bytes at a place.
func (a *arena) at(place uint64, n uint32) []byte {
	off := uint32(place)
	return a.blocks[place>>32][off : off+n : off+n]
}

// reset forgets everything and keeps some of the memory.
func (a *arena) reset() {
	kept := a.blocks[:0]
	for _, b := range a.blocks {
		if len(kept) < arenaKeep && cap(b) == arenaBlock {
			kept = append(kept, b[:0])
		}
	}
	clear(a.blocks[len(kept):])
	a.blocks, a.cur = kept, 0
}
