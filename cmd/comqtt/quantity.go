package main

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// byteUnits are the units of sizes, largest first within each family; a number
// without a unit is in bytes.
var byteUnits = []struct {
	name  string
	bytes int64
}{
	{"GiB", 1 << 30},
	{"MiB", 1 << 20},
	{"KiB", 1 << 10},
	{"GB", 1e9},
	{"MB", 1e6},
	{"KB", 1e3},
	{"B", 1},
}

// parseSize reads a size such as 64KiB, 1.5 GB or 4096.
func parseSize(s string) (int64, error) {
	number, unit := strings.TrimSpace(s), int64(1)
	for _, u := range byteUnits {
		if head, ok := cutSuffixFold(number, u.name); ok {
			number, unit = strings.TrimSpace(head), u.bytes
			break
		}
	}
	if n, err := strconv.ParseInt(number, 10, 64); err == nil {
		if n > math.MaxInt64/unit || n < 0 {
			return 0, errors.New("out of range")
		}
		return n * unit, nil
	}
	f, err := strconv.ParseFloat(number, 64)
	if err != nil || math.IsNaN(f) {
		return 0, errors.New("not a size")
	}
	if bytes := f * float64(unit); bytes >= 0 && bytes < math.MaxInt64 {
		return int64(bytes), nil
	}
	return 0, errors.New("out of range")
}

func cutSuffixFold(s, suffix string) (string, bool) {
	i := len(s) - len(suffix)
	if i < 0 || !strings.EqualFold(s[i:], suffix) {
		return s, false
	}
	return s[:i], true
}

// formatSize writes a size so that parseSize reads the same number back, in the
// largest binary unit that divides it.
func formatSize(n int64) string {
	for _, u := range byteUnits[:3] {
		if n >= u.bytes && n%u.bytes == 0 {
			return fmt.Sprintf("%d%s", n/u.bytes, u.name)
		}
	}
	return strconv.FormatInt(n, 10)
}

// formatCount groups the digits of large numbers by spaces: 12 431.
func formatCount(n uint64) string {
	s := strconv.FormatUint(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + " " + s[i:]
	}
	return s
}

// formatElapsed rounds a duration to what a person wants to know.
func formatElapsed(d time.Duration) string {
	if d < time.Second {
		return d.Round(time.Millisecond).String()
	}
	return strconv.FormatFloat(d.Seconds(), 'f', 2, 64) + "s"
}
