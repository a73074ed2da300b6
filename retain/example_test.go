package retain_test

import (
	"fmt"

	"github.com/wind-c/comqtt/v3/retain"
)

func Example() {
	s := retain.New()
	s.Set("site/7/temp", retain.Entry{Message: 101, Bytes: 40})
	s.Set("site/7/state", retain.Entry{Message: 102, Bytes: 60, Deadline: 1_700_000_000_000})
	s.Set("site/8/temp", retain.Entry{Message: 103, Bytes: 40})

	s.Match("site/+/temp", func(topic string, e retain.Entry) bool {
		fmt.Println(topic, e.Message)
		return true
	})
	for { // expiry
		topic, e, ok := s.Earliest()
		if !ok || e.Deadline > 1_700_000_000_001 {
			break
		}
		s.Delete(topic)
	}
	fmt.Println(s.Len(), "messages,", s.Bytes(), "bytes")
	// Output:
	// site/7/temp 101
	// site/8/temp 103
	// 2 messages, 80 bytes
}

// A long answer in slices: other work, changes of the store included, may be
// done between two calls.
func ExampleStore_MatchFrom() {
	s := retain.New()
	for _, topic := range []string{"a/1", "a/2", "a/3", "a/4", "a/5", "b"} {
		s.Set(topic, retain.Entry{})
	}
	for next, done := "", false; !done; {
		next, done = s.MatchFrom("a/#", next, 2, func(topic string, _ retain.Entry) bool {
			fmt.Print(topic, " ")
			return true
		})
		fmt.Println("|", done)
		s.Delete("a/2")
		s.Delete("a/3")
	}
	// Output:
	// a/1 a/2 | false
	// a/4 a/5 | false
	// | true
}
