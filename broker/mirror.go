package broker

import "github.com/wind-c/comqtt/v3/recovery"

// MirrorInfo says how the second target is; ok is false before Ready and without
// one. It may be called at any time.
func (s *Server) MirrorInfo() (m recovery.MirrorStatus, ok bool) {
	if !s.ready.Load() {
		return m, false
	}
	return s.state.Mirror()
}
