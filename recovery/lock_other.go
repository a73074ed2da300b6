//go:build !unix || solaris || illumos || aix

package recovery

import "os"

// flock does nothing on systems without flock: the backend's own lock remains.
func flock(*os.File) error { return nil }

// flockShared does nothing either.
func flockShared(*os.File) error { return nil }
