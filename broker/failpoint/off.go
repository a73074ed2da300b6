//go:build !failpoints

package failpoint

// Enabled says whether this binary was built with the tag "failpoints".
const Enabled = false

// Hit does nothing in this build.
func Hit(string) {}

// Fault reports false in this build.
func Fault(string) bool { return false }

// FaultAt reports false in this build.
func FaultAt(string) bool { return false }

// Number returns normal in this build.
func Number(_ string, normal int64) int64 { return normal }
