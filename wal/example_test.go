package wal_test

import (
	"fmt"
	"log"
	"os"

	"github.com/wind-c/comqtt/v3/wal"
)

func Example() {
	dir, err := os.MkdirTemp("", "wal")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir) //nolint:errcheck // an example

	o := wal.Options{Dir: dir, StoreID: [16]byte{0xc0}}
	l, report, err := wal.Open(o)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(report)

	f := wal.Frame{Count: 2, Time: 1_700_000_000_000, Term: 1}
	f.Body = wal.AppendRecord(f.Body, []byte("publish a/b hello"))
	f.Body = wal.AppendRecord(f.Body, []byte("subscribe a/#"))
	if err := l.Commit(&f); err != nil {
		log.Fatal(err) // final: acknowledge nothing, exit
	}
	fmt.Println("durable:", f.First, "to", l.Durable())

	if err := l.Close(); err != nil {
		log.Fatal(err)
	}
	if l, report, err = wal.Open(o); err != nil {
		log.Fatal(err)
	}
	fmt.Println(report.Records, report.Clean)
	err = l.Replay(0, func(f *wal.Frame) error {
		return f.Records(func(index uint64, rec []byte) error {
			_, err := fmt.Printf("%d: %s\n", index, rec)
			return err
		})
	})
	if err != nil {
		log.Fatal(err)
	}
	if err := l.Close(); err != nil {
		log.Fatal(err)
	}
	// Output:
	// new log
	// durable: 1 to 2
	// 2 true
	// 1: publish a/b hello
	// 2: subscribe a/#
}
