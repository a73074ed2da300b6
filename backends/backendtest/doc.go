// Package backendtest is the contract of backends.Store as a test suite. A
// driver is done when its test runs it:
//
//	func TestStore(t *testing.T) {
//		backendtest.Run(t, func(t *testing.T, dir string) backends.Store {
//			s, err := bbolt.Open(filepath.Join(dir, "state.bbolt"), bbolt.Options{Create: true})
//			if err != nil {
//				t.Fatal(err)
//			}
//			return s
//		})
//	}
//
// open is called again with the same dir after Close, and must then find what
// was committed, unless the option Volatile says otherwise.
package backendtest
