package bbolt_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/wind-c/comqtt/v3/backends"
	"github.com/wind-c/comqtt/v3/backends/bbolt"
)

func Example() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "state.bbolt")
	ctx := context.Background()

	store, err := bbolt.Open(path, bbolt.Options{Create: true})
	if err != nil {
		log.Fatal(err)
	}
	var b backends.Batch
	b.Put(backends.IDKey(nil, backends.TableBody, 1), []byte("a message"))
	if err := store.Commit(ctx, &b, backends.Mark{Applied: 1}); err != nil {
		log.Fatal(err)
	}
	if err := store.Close(); err != nil {
		log.Fatal(err)
	}

	store, err = bbolt.Open(path, bbolt.Options{ReadOnly: true})
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()
	keys := [][]byte{backends.IDKey(nil, backends.TableBody, 1), backends.IDKey(nil, backends.TableBody, 2)}
	err = store.Get(ctx, keys, func(i int, val []byte) error {
		fmt.Printf("%d: %q\n", i, val)
		return nil
	})
	if err != nil {
		log.Fatal(err)
	}
	// Output:
	// 0: "a message"
	// 1: ""
}
