//go:build !race

package wal

// thin says that the exhaustive tests, which have nothing to race, take samples.
const thin = false
