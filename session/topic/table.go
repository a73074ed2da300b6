package topic

// tableKeep is the number of entries up to which an empty table keeps its map.
const tableKeep = 1024

// A table is a Go map which gives its memory back when the last entry leaves:
// a map by itself never shrinks. It does not do so earlier, because a copy of
// what is left would hold up the change that causes it. Read m directly: only
// so does the compiler look up a []byte as a string without copying it.
type table[K comparable, V any] struct {
	m    map[K]V
	peak int // greatest size since the map was made
}

func newTable[K comparable, V any]() table[K, V] {
	return table[K, V]{m: map[K]V{}}
}

func (t *table[K, V]) set(k K, v V) {
	t.m[k] = v
	t.peak = max(t.peak, len(t.m))
}

func (t *table[K, V]) remove(k K) {
	delete(t.m, k)
	if len(t.m) == 0 && t.peak > tableKeep {
		*t = newTable[K, V]()
	}
}
