package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/wind-c/comqtt/v3/recovery/inspect"
)

// parsePoint reads a place in the log: a record index, or a time as RFC 3339.
func parsePoint(text string) (inspect.Point, error) {
	if index, err := strconv.ParseUint(strings.ReplaceAll(text, "_", ""), 10, 64); err == nil && index > 0 {
		return inspect.Point{Index: index}, nil
	}
	t, err := parseTime(text)
	if err != nil {
		return inspect.Point{}, fmt.Errorf("%q is neither a record index nor a time such as 2026-11-26T01:14:46Z", text)
	}
	return inspect.Point{Time: t}, nil
}

// parseTime reads a time as RFC 3339, and returns it in unix milliseconds.
func parseTime(text string) (int64, error) {
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil || t.UnixMilli() <= 0 {
		return 0, fmt.Errorf("%q is not a time such as 2026-11-26T01:14:46Z", text)
	}
	return t.UnixMilli(), nil
}
