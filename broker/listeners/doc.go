// Package listeners takes connections from the network and hands each one to
// the broker as a net.Conn, and does nothing more: it knows no MQTT.
//
//	TCP        *net.TCPConn as accepted
//	Unix       *net.UnixConn as accepted
//	TLS        *tls.Conn; Certificate follows its files
//	Websocket  binary frames behind a net.Conn, over TLS too; path and subprotocol checked
//	Net        any net.Listener an embedding program already has
//
// The life of a listener is New, Listen, Serve, Close. Listen binds, so that a
// taken port is known before any data is touched; Serve accepts until Close.
// Between the two, connections wait in the kernel's backlog.
//
// # Accept errors
//
// A failing Accept never ends a listener. When the process is out of file
// descriptors the loop says so in the log, backs off (5 ms doubling to 1 s) and
// goes on; connections that end meanwhile make room.
//
// # Concurrency
//
// Every method may be called from any goroutine. Serve may be called once. It
// calls handle on a new goroutine per connection, which from then on belongs to
// the caller: Close ends accepting and waits for the accept goroutine (and for
// WebSocket handshakes under way), not for connections already handed over.
//
// # WebSocket
//
// coder/websocket does the handshake; then the HTTP handler returns, so that an
// idle connection holds neither the HTTP server's goroutine nor any buffer. The
// frames are taken apart here, in the caller's buffer and in pieces of any size:
// a read may be interrupted by a deadline anywhere and go on later. Outgoing
// frames are header and payload in one writev without a copy. Payload size is
// not limited at this level because the broker limits MQTT packets, which need
// not align with frames [MQTT-6.0.0-2]; a frame is never held in memory as a
// whole.
package listeners
