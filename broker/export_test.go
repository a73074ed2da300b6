package broker

// SetFreeSpace lets a test play a file system of n bytes free. Call it before
// Serve.
func (s *Server) SetFreeSpace(n func() int64) {
	s.free = func(string) (int64, error) { return n(), nil }
}

// CheckSpace looks at the free space at once.
func (s *Server) CheckSpace() { s.checkSpace() }
