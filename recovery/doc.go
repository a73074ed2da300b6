// Package recovery opens a data directory, replays the log onto the backend's
// state, and keeps the backend in step from there on.
package recovery
