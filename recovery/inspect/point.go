package inspect

// Point is a moment in the life of a store: after the record Index, or, with
// Index 0, after the last record whose log time is not after Time (unix ms).
type Point struct {
	Index uint64
	Time  int64
}

// String names the point.
func (p Point) String() string {
	if p.Index != 0 {
		return "record " + itoa(p.Index)
	}
	return Time(p.Time).String()
}

// past reports whether a record with this index and time comes after the point.
func (p Point) past(index uint64, now int64) bool {
	if p.Index != 0 {
		return index > p.Index
	}
	return now > p.Time
}
