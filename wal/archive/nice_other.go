//go:build !linux

package archive

// lowerPriority does nothing: there is no portable way.
func lowerPriority() {}
