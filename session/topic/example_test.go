package topic_test

import (
	"fmt"

	"github.com/wind-c/comqtt/v3/session/topic"
)

func Example() {
	x := topic.NewIndex()
	x.Subscribe("sport/tennis/+", topic.Sub{Ref: 1, Opts: topic.MakeOptions(1, topic.RetainSend, 0)})
	x.Subscribe("sport/#", topic.Sub{Ref: 1, ID: 7, Opts: topic.MakeOptions(2, topic.RetainSend, 0)})
	x.Subscribe("$share/scorers/sport/tennis/player1", topic.Sub{Ref: 2})
	x.Subscribe("$share/scorers/sport/tennis/player1", topic.Sub{Ref: 3})

	var m topic.Matches // kept by the caller: a match allocates only while it grows
	x.Match([]byte("sport/tennis/player1"), &m)
	fmt.Println("filters:", m.Filters)
	for _, s := range m.Subs {
		fmt.Printf("client %d, QoS %d, identifier %d\n", s.Ref, s.Opts.QoS(), s.ID)
	}
	for _, g := range m.Groups {
		fmt.Printf("one of the %d members of %s on %s\n", len(g.Members), g.Share, g.Filter)
	}
	// Output:
	// filters: 2
	// client 1, QoS 2, identifier 7
	// client 1, QoS 1, identifier 0
	// one of the 2 members of scorers on sport/tennis/player1
}

func ExampleValidateFilter() {
	fmt.Println(topic.ValidateFilter([]byte("sport/tennis#")))
	fmt.Println(topic.ValidateFilter([]byte("$share/g+/sport")))
	fmt.Println(topic.ValidateFilter([]byte("$share/g/sport/#")))
	// Output:
	// topic: '#' is not the whole last level [MQTT-4.7.1-1]
	// topic: share name with a wildcard, or not followed by a topic filter [MQTT-4.8.2-2]
	// <nil>
}
