// Package bbolt is the default backend: one file, go.etcd.io/bbolt inside.
package bbolt
