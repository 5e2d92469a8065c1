// Command interleave writes an overlay of the standard library for go test, in which every lock is a place where the simulation may let others go first.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// places are the methods that get a call of sync.Yield as their first line.
var places = map[string]string{
	"mutex.go":   "func (m *Mutex) Lock() {\n",
	"rwmutex.go": "func (rw *RWMutex) RLock() {\n", // its Lock takes a Mutex
}

const declared = `
// Yield, if set, is called before every lock.
var Yield func()
`

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: interleave FOLDER: writes FOLDER/overlay.json for go test -overlay FOLDER/overlay.json -tags interleave")
		os.Exit(2)
	}
	if err := write(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "interleave:", err)
		os.Exit(1)
	}
}

func write(dir string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return fmt.Errorf("go env GOROOT: %w", err)
	}
	library := filepath.Join(strings.TrimSpace(string(out)), "src", "sync")
	replace := map[string]string{}
	for name, place := range places {
		from, to := filepath.Join(library, name), filepath.Join(dir, name)
		b, err := os.ReadFile(from)
		if err != nil {
			return err
		}
		text := string(b)
		if strings.Count(text, place) != 1 {
			return fmt.Errorf("%s does not have %q once: look where its lock begins now", from, strings.TrimSpace(place))
		}
		text = strings.Replace(text, place, place+"\tif Yield != nil {\n\t\tYield()\n\t}\n", 1)
		if name == "mutex.go" {
			text += declared
		}
		if err := os.WriteFile(to, []byte(text), 0o600); err != nil {
			return err
		}
		replace[from] = to
	}
	b, err := json.Marshal(map[string]any{"Replace": replace})
	return errors.Join(err, os.WriteFile(filepath.Join(dir, "overlay.json"), b, 0o600))
}
