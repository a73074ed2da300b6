//go:build !unix

package migrate

import "errors"

func freeSpace(string) (int64, error) { return 0, errors.ErrUnsupported }
