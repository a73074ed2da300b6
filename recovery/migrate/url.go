package migrate

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/wind-c/comqtt/v3/backends/redis"
)

// The kinds of backends that a URL names.
const (
	KindBbolt  = "bbolt"
	KindBadger = "badger"
	KindRedis  = "redis"
)

// URL names a backend: bbolt://DIR and badger://DIR a data directory with it,
// redis://… the keys of a server.
type URL struct {
	Kind string
	Dir  string // the data directory; "" with KindRedis
	text string
}

// ParseURL reads a URL. The error is ErrURL.
func ParseURL(text string) (URL, error) {
	for _, kind := range []string{KindBbolt, KindBadger} {
		dir, ok := strings.CutPrefix(text, kind+"://")
		if !ok {
			continue
		}
		if dir == "" {
			return URL{}, fmt.Errorf("%w %s: no directory: want %s://DIR", ErrURL, text, kind)
		}
		return URL{Kind: kind, Dir: filepath.Clean(dir), text: kind + "://" + dir}, nil
	}
	if redis.IsURL(text) {
		if err := redis.CheckURL(text); err != nil {
			return URL{}, fmt.Errorf("%w: %w", ErrURL, err)
		}
		return URL{Kind: KindRedis, text: text}, nil
	}
	if scheme, _, ok := strings.Cut(text, "://"); ok {
		return URL{}, fmt.Errorf("%w: %s:// is no backend: want bbolt://DIR, badger://DIR or redis://HOST:PORT/DB?prefix=NAME", ErrURL, scheme)
	}
	return URL{}, fmt.Errorf("%w: %q has no scheme: want bbolt://%[2]s, badger://%[2]s or redis://HOST:PORT/DB?prefix=NAME", ErrURL, text)
}

// String returns the URL without passwords.
func (u URL) String() string {
	if u.Kind == KindRedis {
		return redis.Redact(u.text)
	}
	return u.text
}

// same says whether two URLs name the same place.
func (u URL) same(v URL) bool {
	if (u.Dir == "") != (v.Dir == "") {
		return false
	}
	if u.Dir == "" {
		return u.String() == v.String()
	}
	return absolute(u.Dir) == absolute(v.Dir)
}

// absolute returns the path without symbolic links, as far as it exists.
func absolute(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		path = abs
	}
	if real, err := filepath.EvalSymlinks(path); err == nil {
		return real
	}
	return path
}
