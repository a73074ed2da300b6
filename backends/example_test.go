package backends_test

import (
	"context"
	"fmt"
	"log"

	"github.com/wind-c/comqtt/v3/backends"
	"github.com/wind-c/comqtt/v3/backends/memory"
)

func Example() {
	ctx := context.Background()
	store := memory.New()
	defer store.Close()

	var b backends.Batch
	b.Put(backends.PairKey(nil, backends.TableQueue, 7, 1), []byte("first"))
	b.Put(backends.PairKey(nil, backends.TableQueue, 7, 2), []byte("second"))
	b.Put(backends.PairKey(nil, backends.TableQueue, 8, 1), []byte("of another session"))
	if err := store.Commit(ctx, &b, backends.Mark{Applied: 42, Schema: backends.Schema}); err != nil {
		log.Fatal(err)
	}

	mark, err := store.Mark(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("applied", mark.Applied)
	err = store.Scan(ctx, backends.IDKey(nil, backends.TableQueue, 7), func(key, val []byte) error {
		_, position, _ := backends.SplitPair(key)
		fmt.Printf("%d: %s\n", position, val)
		return nil
	})
	if err != nil {
		log.Fatal(err)
	}
	// Output:
	// applied 42
	// 1: first
	// 2: second
}
