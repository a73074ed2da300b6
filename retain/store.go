package retain

// An Entry is the retained message of a topic, without its body.
type Entry struct {
	Message  uint64 // record index of the publish
	QoS      byte   // QoS it was published with, 0 to 2
	Time     int64  // log time of the publish, unix ms
	Deadline int64  // log time at which it expires (§3.3.2.3.3), unix ms; 0 = never
	Bytes    int    // what it counts in Store.Bytes: the size of the stored message
}

// An item is a topic that has a retained message.
type item struct {
	topic string
	entry Entry
	due   int32 // position in Store.due + 1, 0 if not in
}

// A Store holds the retained messages. See the package documentation for
// structure and order. The zero value is not usable: call New.
type Store struct {
	byTopic map[string]*item
	topics  order
	due     dueHeap
	bytes   int
	peak    int // greatest number of topics since New or since memory was given back
}

// keepEmpty is the number of topics up to which an empty store keeps its memory.
const keepEmpty = 1024

// New returns an empty store.
func New() *Store {
	return &Store{byTopic: map[string]*item{}}
}

// Set makes e the retained message of a topic and returns the one it replaces
// [MQTT-3.3.1-5]. That a retained message with an empty payload removes instead
// [MQTT-3.3.1-6] is for the caller to see to, with Delete. A topic that is new
// is kept: it should own its memory rather than be a part of something larger.
func (s *Store) Set(topic string, e Entry) (old Entry, had bool) {
	if it := s.byTopic[topic]; it != nil {
		return s.replace(it, e), true
	}
	s.add(topic, e)
	return Entry{}, false
}

// SetBytes is Set for a topic that the caller goes on using: it is copied if it
// is new. Replacing a message does not allocate.
func (s *Store) SetBytes(topic []byte, e Entry) (old Entry, had bool) {
	if it := s.byTopic[string(topic)]; it != nil {
		return s.replace(it, e), true
	}
	s.add(string(topic), e)
	return Entry{}, false
}

func (s *Store) replace(it *item, e Entry) (old Entry) {
	old, it.entry = it.entry, e
	s.bytes += e.Bytes - old.Bytes
	if old.Deadline != e.Deadline {
		s.due.update(it)
	}
	return old
}

func (s *Store) add(topic string, e Entry) {
	it := &item{topic: topic, entry: e}
	s.byTopic[topic] = it
	s.topics.insert(it)
	s.due.update(it)
	s.bytes += e.Bytes
	s.peak = max(s.peak, len(s.byTopic))
}

// Get returns the retained message of a topic.
func (s *Store) Get(topic string) (Entry, bool) {
	it := s.byTopic[topic]
	if it == nil {
		return Entry{}, false
	}
	return it.entry, true
}

// Delete removes the retained message of a topic and returns it.
func (s *Store) Delete(topic string) (Entry, bool) {
	it := s.byTopic[topic]
	if it == nil {
		return Entry{}, false
	}
	delete(s.byTopic, topic)
	s.topics.remove(it)
	s.due.remove(it)
	s.bytes -= it.entry.Bytes
	if len(s.byTopic) == 0 && s.peak > keepEmpty {
		*s = *New() // Go maps and slices keep their memory
	}
	return it.entry, true
}

// Len returns the number of retained messages.
func (s *Store) Len() int { return len(s.byTopic) }

// Bytes returns the sum of their Entry.Bytes.
func (s *Store) Bytes() int { return s.bytes }

// Earliest returns the message with the earliest deadline; of several, the
// first in level order. It returns ok = false if none has a deadline. Expiry is
// a loop of Earliest and Delete, as long as the deadline has passed.
func (s *Store) Earliest() (topic string, e Entry, ok bool) {
	if len(s.due) == 0 {
		return "", Entry{}, false
	}
	return s.due[0].topic, s.due[0].entry, true
}

// All calls fn for each message in level order until fn returns false.
func (s *Store) All(fn func(topic string, e Entry) bool) {
	for _, pg := range s.topics.pages {
		for _, it := range pg.items {
			if !fn(it.topic, it.entry) {
				return
			}
		}
	}
}
