package redis

import (
	"crypto/tls"
	"fmt"
	"net/url"
	"strings"
	"time"

	rdb "github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// DefaultPrefix is the prefix of the keys where the URL names none.
const DefaultPrefix = "comqtt"

// IsURL says whether text is a URL of this package: redis://, rediss:// (TLS) or
// unix:// (a socket).
func IsURL(text string) bool {
	for _, scheme := range []string{"redis://", "rediss://", "unix://"} {
		if strings.HasPrefix(text, scheme) {
			return true
		}
	}
	return false
}

// target is a parsed URL.
type target struct {
	prefix string
	name   string // the URL without its secrets
	dial   func() rdb.UniversalClient
}

// CheckURL says whether Open would take the URL.
func CheckURL(text string) error {
	_, err := parse(text)
	return err
}

// Redact returns the URL without user, password and options, for logs.
func Redact(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		return "redis (unreadable URL)"
	}
	prefix := u.Query().Get("prefix")
	if prefix == "" {
		prefix = DefaultPrefix
	}
	return fmt.Sprintf("%s://%s%s?prefix=%s", u.Scheme, u.Host, u.Path, url.QueryEscape(prefix))
}

// parse reads a URL. The prefix is ours, the rest is the client's; which one it
// is, the options say:
//
//	redis://user:pass@host:port/db?prefix=p           one server; rediss:// with TLS
//	…?master_name=m&addr=host:port&addr=…             the master that sentinels name
//	…?cluster=true&addr=host:port&addr=…              a cluster
func parse(text string) (*target, error) {
	u, err := url.Parse(text)
	if err != nil || !IsURL(text) {
		return nil, fmt.Errorf("%w %s: want redis://user:password@host:port/db?prefix=name", ErrURL, Redact(text))
	}
	t := &target{prefix: DefaultPrefix, name: Redact(text)}
	q := u.Query()
	if q.Has("prefix") {
		t.prefix = q.Get("prefix")
	}
	if t.prefix == "" || strings.ContainsAny(t.prefix, "{}") || len(t.prefix) > 256 {
		return nil, fmt.Errorf("%w %s: the prefix is empty, too long or has braces", ErrURL, t.name)
	}
	cluster := q.Get("cluster") == "true"
	failover := q.Has("master_name")
	q.Del("prefix")
	q.Del("cluster")
	u.RawQuery = q.Encode()
	switch text := u.String(); {
	case cluster:
		err = t.cluster(text)
	case failover:
		err = t.failover(text)
	default:
		err = t.single(text)
	}
	if err != nil {
		// The client's error may quote the URL and its password.
		return nil, fmt.Errorf("%w %s: %s", ErrURL, t.name, strings.ReplaceAll(err.Error(), u.String(), "URL"))
	}
	return t, nil
}

const (
	dialTimeout = 2 * time.Second
	// readTimeout is how long a script may take, in which the server answers
	// nobody else.
	readTimeout = 10 * time.Second
	poolSize    = 4
)

func orDefault(d *time.Duration, def time.Duration) {
	if *d == 0 {
		*d = def
	}
}

func minTLS(c *tls.Config) {
	if c != nil && c.MinVersion == 0 {
		c.MinVersion = tls.VersionTLS12
	}
}

func (t *target) single(text string) error {
	o, err := rdb.ParseURL(text)
	if err != nil {
		return err
	}
	orDefault(&o.DialTimeout, dialTimeout)
	orDefault(&o.ReadTimeout, readTimeout)
	orDefault(&o.WriteTimeout, readTimeout)
	if o.PoolSize == 0 {
		o.PoolSize = poolSize
	}
	minTLS(o.TLSConfig)
	o.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	o.DisableIdentity, o.ContextTimeoutEnabled, o.DialerRetries = true, true, 1
	t.dial = func() rdb.UniversalClient { return rdb.NewClient(o) }
	return nil
}

func (t *target) failover(text string) error {
	o, err := rdb.ParseFailoverURL(text)
	if err != nil {
		return err
	}
	orDefault(&o.DialTimeout, dialTimeout)
	orDefault(&o.ReadTimeout, readTimeout)
	orDefault(&o.WriteTimeout, readTimeout)
	if o.PoolSize == 0 {
		o.PoolSize = poolSize
	}
	minTLS(o.TLSConfig)
	o.DisableIdentity, o.ContextTimeoutEnabled, o.DialerRetries = true, true, 1
	t.dial = func() rdb.UniversalClient { return rdb.NewFailoverClient(o) }
	return nil
}

func (t *target) cluster(text string) error {
	o, err := rdb.ParseClusterURL(text)
	if err != nil {
		return err
	}
	orDefault(&o.DialTimeout, dialTimeout)
	orDefault(&o.ReadTimeout, readTimeout)
	orDefault(&o.WriteTimeout, readTimeout)
	if o.PoolSize == 0 {
		o.PoolSize = poolSize
	}
	minTLS(o.TLSConfig)
	o.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	o.DisableIdentity, o.ContextTimeoutEnabled, o.DialerRetries = true, true, 1
	t.dial = func() rdb.UniversalClient { return rdb.NewClusterClient(o) }
	return nil
}
