// Package admin is the broker's HTTP side: today the health endpoints that
// people, load balancers and service managers ask.
//
//	GET /livez             200 while the process is worth keeping, else 503
//	GET /readyz            200 when MQTT clients are served, else 503 and why;
//	                       during replay with the percentage done
//	GET /readyz?verbose    the same, then one line per check
//	GET /version           {"version":…,"go":…,"os":…,"arch":…}
//
// Liveness and readiness differ while the log is replayed: the process must not
// be restarted, and must not get traffic. Both are computed from one Status that
// the broker gives; nothing here is cached.
//
// There is no authentication: the answers hold no client data. The server
// listens on loopback unless told otherwise.
//
// All methods may be called from any goroutine.
package admin
