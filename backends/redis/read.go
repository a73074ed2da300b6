package redis

import (
	"context"
	"errors"
	"fmt"

	rdb "github.com/redis/go-redis/v9"

	"github.com/wind-c/comqtt/v3/backends"
)

// OpenReader opens the keys for reading, whosever they are, and changes nothing:
// a broker that works on them keeps them. Where there is nothing, the mark is
// the zero Mark. A Commit fails.
func OpenReader(ctx context.Context, url string) (*Store, error) {
	t, err := parse(url)
	if err != nil {
		return nil, err
	}
	rdb.SetLogger(silent{})
	tag := "{" + t.prefix + "}:"
	s := &Store{
		name: t.name, owner: newToken(), client: t.dial(), scripts: newScripts(),
		meta: tag + "meta", keys: tag + "keys", data: tag + "data", stage: tag + "stage:",
	}
	format, err := s.client.HGet(ctx, s.meta, "format").Result()
	switch {
	case errors.Is(err, rdb.Nil):
		return s, nil
	case err != nil:
		err = s.explain("look at", err)
	case format != "1":
		err = fmt.Errorf("redis: look at %s: format %q: %w", s.name, format, backends.ErrSchema)
	default:
		return s, nil
	}
	return nil, errors.Join(err, s.client.Close())
}
