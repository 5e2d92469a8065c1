package trial

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// arrived is what was found at the destinations.
type arrived struct {
	dropIDs, dropTwice, dropObjects int
	parquetObjects                  int
	lineIDs, lineRepeats            int
}

// readBack reads the NDJSON drops below dir and the receiver's lines, and
// counts the events whose ids start with prefix.
func readBack(dir, lines, prefix string) (arrived, error) {
	var a arrived
	seen := map[string]bool{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		switch {
		case err != nil || e.IsDir():
			return err
		case strings.HasSuffix(path, ".parquet"):
			a.parquetObjects++
			return nil
		case !strings.HasSuffix(path, ".ndjson.gz"):
			return nil
		}
		a.dropObjects++
		twice, err := readIDs(path, prefix, seen)
		a.dropTwice += twice
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return a, fmt.Errorf("read the drops back: %w", err)
	}
	a.dropIDs = len(seen)
	got := map[string]bool{}
	if a.lineRepeats, err = readIDs(lines, prefix, got); err != nil {
		return a, fmt.Errorf("read the receiver's lines back: %w", err)
	}
	a.lineIDs = len(got)
	return a, nil
}

// readIDs adds the event ids of a file of lines and says how many it had already.
func readIDs(path, prefix string, seen map[string]bool) (again int, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	var r io.Reader = f
	if strings.HasSuffix(path, ".gz") {
		z, err := gzip.NewReader(f)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", path, err)
		}
		r = z
	}
	sc := bufio.NewScanner(r)
	sc.Buffer(make([]byte, 64<<10), 1<<20)
	for sc.Scan() {
		_, rest, ok := bytes.Cut(sc.Bytes(), []byte(`"event_id":"`))
		id, _, end := bytes.Cut(rest, []byte(`"`))
		if !ok || !end {
			return again, fmt.Errorf("%s: a line without an event_id: %.80s", path, sc.Bytes())
		}
		if !bytes.HasPrefix(id, []byte(prefix)) {
			continue // of an earlier demo in this folder
		}
		if seen[string(id)] {
			again++
		}
		seen[string(id)] = true
	}
	if err := sc.Err(); err != nil {
		return again, fmt.Errorf("%s: %w", path, err)
	}
	return again, nil
}
