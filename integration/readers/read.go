package readers

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// reader is one of the programs that read; each is started once for all objects.
type reader struct {
	name    string
	command []string
	types   *dialect
}

var both = [2]reader{
	{"DuckDB", []string{"node", "../readers/duckdb.mjs"}, &duckDB},
	{"pyarrow", []string{"../.testbed/pyarrow/bin/python", "../readers/arrow.py"}, &pyArrow},
}

// request is what a reader is asked, in a file.
type request struct {
	Format  string   `json:"format"`
	Columns []column `json:"columns"`
	Apart   []string `json:"apart"`
	Whole   bool     `json:"whole"` // the texts of each row's columns, not their digest
	Files   []string `json:"files"`
	Out     string   `json:"out"`
}

// answer is what a reader says of the files. schemas are there for Parquet only.
type answer struct {
	Version string `json:"version"`
	Schemas []struct {
		Leaves []string `json:"leaves"`
		Types  []string `json:"types"`
		Files  []int    `json:"files"` // by place in the request
	} `json:"schemas"`
	out    string
	took   time.Duration
	used   time.Duration // of processor
	memory int64         // at most, bytes
}

// ask has a reader read the files.
func (r *reader) ask(t testing.TB, q request) (a answer, err error) {
	dir := t.TempDir()
	q.Out, q.Apart = filepath.Join(dir, "rows.tsv"), apart
	raw, err := json.Marshal(q)
	if err != nil {
		return a, err
	}
	path := filepath.Join(dir, "request.json")
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		return a, err
	}
	began := time.Now()
	cmd := exec.CommandContext(t.Context(), r.command[0], append(r.command[1:], path)...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	raw, err = cmd.Output()
	if err == nil {
		err = json.Unmarshal(raw, &a)
	}
	if err != nil {
		return a, fmt.Errorf("%s (task readers installs it): %w\n%s", r.name, err, errs.String())
	}
	a.out, a.took = q.Out, time.Since(began)
	a.used = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	if r, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		a.memory = r.Maxrss << 10 // Linux counts in KiB
	}
	return a, nil
}

// row is what a reader found of an event.
type row struct {
	file   int // by place in the request
	id     string
	times  [2]int64
	digest digest
}

// rows calls with every row that the reader found.
func (a *answer) rows(call func(row)) error {
	return a.each(func(cells []string) (err error) {
		var r row
		if r.file, err = strconv.Atoi(cells[0]); err != nil {
			return err
		}
		r.id = cells[1]
		for i := range r.times {
			if r.times[i], err = strconv.ParseInt(cells[2+i], 10, 64); err != nil {
				return fmt.Errorf("%s of %s: %w", apart[i], r.id, err)
			}
		}
		if r.digest, err = parseDigest(cells[4]); err != nil {
			return err
		}
		call(r)
		return nil
	})
}

// texts gives the canonical texts of one event's columns, of a whole reading.
func (a *answer) texts(id string) (texts []string, err error) {
	err = a.each(func(cells []string) error {
		if cells[1] != id || texts != nil {
			return nil
		}
		return json.NewDecoder(strings.NewReader(cells[4])).Decode(&texts)
	})
	return texts, err
}

func (a *answer) each(call func(cells []string) error) error {
	f, err := os.Open(a.out)
	if err != nil {
		return err
	}
	defer f.Close()
	c := csv.NewReader(f)
	c.Comma, c.FieldsPerRecord, c.ReuseRecord = '\t', 5, true
	for {
		cells, err := c.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = call(cells)
		}
		if err != nil {
			return err
		}
	}
}
