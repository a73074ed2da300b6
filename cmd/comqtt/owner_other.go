//go:build !linux

package main

// addressOwner is known on Linux only.
func addressOwner(network, address string) string { return "" }
