package powerfs

import (
	"fmt"
	"math/rand/v2"
	"slices"
)

// Sector is the unit that a disk writes as a whole.
const Sector = 512

// Loss says what of the changes that were not synced a cut takes.
type Loss uint8

const (
	// LoseAll takes everything that was not synced.
	LoseAll Loss = iota
	// LoseSome takes a random part: of the writes any sectors, of the names in
	// each directory the last changes.
	LoseSome
	// LoseLast takes the names as LoseSome, keeps the writes and tears the last
	// one of each file at a sector.
	LoseLast
	// LoseNames takes all changes of names and no write.
	LoseNames
	// LoseWrites takes all writes and no change of names: files that exist and
	// are empty, or hold what they held before.
	LoseWrites
	// Losses is how many there are.
	Losses
)

var lossNames = [...]string{"all", "some", "torn", "names", "writes"}

func (l Loss) String() string {
	if int(l) < len(lossNames) {
		return lossNames[l]
	}
	return fmt.Sprintf("loss(%d)", uint8(l))
}

// Damage is what a cut has taken.
type Damage struct {
	Loss   Loss
	Writes int // pending writes and changes of size, of files that are left
	Lost   int // of these, lost
	Torn   int // of these, lost in part
	Names  int // pending changes of names
	Undone int // of these, lost
}

func (d *Damage) String() string {
	return fmt.Sprintf("power (%s: lost %d and tore %d of %d writes, %d of %d names)", d.Loss, d.Lost, d.Torn, d.Writes, d.Undone, d.Names)
}

// Crash makes what the cut has left the content of the disk, turns the power on
// again, and says what is gone. The disk must not be mounted.
func (d *Disk) Crash(loss Loss, rnd *rand.Rand) *Damage {
	d.mu.Lock()
	defer d.mu.Unlock()
	dmg := &Damage{Loss: loss, Names: len(d.changes)}
	over := map[*node]bool{} // directories of which a change was lost
	for i := range d.changes {
		c := &d.changes[i]
		lost := over[c.from] || over[c.to]
		switch loss {
		case LoseAll, LoseNames:
			lost = true
		case LoseSome, LoseLast:
			lost = lost || rnd.IntN(3) == 0
		case LoseWrites:
		}
		if !lost {
			c.apply()
			continue
		}
		dmg.Undone++
		for _, t := range []*node{c.from, c.to} {
			if t != nil {
				over[t] = true
			}
		}
	}
	d.changes = nil
	d.root = d.survivor(d.root, "", nil, loss, rnd, dmg)
	d.on()
	return dmg
}

// survivor returns the node as it is after the cut.
func (d *Disk) survivor(n *node, name string, parent *node, loss Loss, rnd *rand.Rand, dmg *Damage) *node {
	s := d.node(n.mode)
	s.name, s.parent = name, parent
	for _, kid := range sorted(n.kept) { // so that a seed repeats
		k := d.survivor(n.kept[kid], kid, s, loss, rnd, dmg)
		s.kids[kid], s.kept[kid] = k, k
	}
	if !n.dir() {
		s.stable = n.after(loss, rnd, dmg)
		s.data = slices.Clone(s.stable)
	}
	return s
}

// after returns the content of a file after the cut.
func (n *node) after(loss Loss, rnd *rand.Rand, dmg *Damage) []byte {
	b := slices.Clone(n.stable)
	dmg.Writes += len(n.pending)
	share := rnd.IntN(5) // of 4
	for i := range n.pending {
		w := &n.pending[i]
		switch {
		case loss == LoseAll || loss == LoseWrites:
			dmg.Lost++
		case loss == LoseNames || loss == LoseLast && i < len(n.pending)-1:
			b = w.apply(b)
		case loss == LoseLast || rnd.IntN(4) == 0:
			b = w.tear(b, rnd)
			dmg.Torn++
		case rnd.IntN(4) < share:
			b = w.apply(b)
		default:
			dmg.Lost++
		}
	}
	return b
}

// tear carries a part of a write out: the sectors up to one, or any of them.
func (w *write) tear(b []byte, rnd *rand.Rand) []byte {
	if len(w.data) == 0 {
		return b
	}
	upto, some := rnd.IntN(len(w.data)/Sector+2), rnd.IntN(2) == 0
	k := 0
	for at := 0; at < len(w.data); k++ {
		end := min(len(w.data), int((w.off+int64(at))/Sector+1)*Sector-int(w.off))
		if some && rnd.IntN(2) == 0 || !some && k < upto {
			part := write{off: w.off + int64(at), data: w.data[at:end]}
			b = part.apply(b)
		}
		at = end
	}
	return b
}

// Tree lists the disk as processes see it: paths of files with their sizes.
func (d *Disk) Tree() map[string]int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	files := map[string]int64{}
	var walk func(n *node)
	walk = func(n *node) {
		if !n.dir() {
			files[n.path()] = int64(len(n.data))
		}
		for _, kid := range n.kids {
			walk(kid)
		}
	}
	walk(d.root)
	return files
}

// Export calls fn for each directory, before what is in it, and each file.
// content is nil for a directory.
func (d *Disk) Export(fn func(path string, content []byte) error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	var walk func(n *node) error
	walk = func(n *node) error {
		var content []byte
		if !n.dir() {
			content = append([]byte{}, n.data...)
		}
		if err := fn(n.path(), content); err != nil {
			return err
		}
		for _, kid := range sorted(n.kids) {
			if err := walk(n.kids[kid]); err != nil {
				return err
			}
		}
		return nil
	}
	return walk(d.root)
}

func sorted(m map[string]*node) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
