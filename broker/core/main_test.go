package core

import (
	"flag"
	"os"
	"testing"
)

// TestMain makes the properties of this package, which are quick, run more
// often than rapid does by itself.
func TestMain(m *testing.M) {
	flag.Parse()
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "rapid.checks" })
	if !given {
		if err := flag.Set("rapid.checks", "150"); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}
