package badger

import (
	"fmt"
	"os"
	"path/filepath"
)

// removeUnborn removes files of the value log and logs of tables in memory that
// a kill has left without a single byte: badger makes one of each at a start,
// and refuses an empty one at the next.
func removeUnborn(path string) error {
	var files []string
	for _, pattern := range []string{"*.vlog", "*.mem"} {
		list, err := filepath.Glob(filepath.Join(path, pattern))
		if err != nil {
			return fmt.Errorf("badger: open %s: %w", path, err)
		}
		files = append(files, list...)
	}
	removed := false
	for _, f := range files {
		info, err := os.Stat(f)
		if err == nil && info.Size() == 0 {
			err = os.Remove(f)
			removed = true
		}
		if err != nil {
			return fmt.Errorf("badger: remove an unborn file: %w", err)
		}
	}
	if removed {
		return syncDir(path)
	}
	return nil
}
