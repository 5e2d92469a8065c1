package readers

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"datasync/integration/harness"
)

// Check has DuckDB and pyarrow read every object of a sink below dir, and fails
// the test unless each object has the schema, and each of its rows is an event
// of the Truth, of the object's tenant, with the same values in all columns to
// both. It gives how often each id is there: which of them should be is the
// test's to say.
func Check(t testing.TB, u *Truth, dir, sink string) harness.IDs {
	t.Helper()
	c := &check{Truth: u, format: ndjson, where: "sink " + sink}
	c.objects(t, dir, sink)
	if len(c.files) == 0 {
		t.Fatalf("%s has no object below %s", c.where, dir)
	}
	var answers [2]answer
	var errs [2]error
	done := make(chan int)
	for i := range both {
		go func() {
			answers[i], errs[i] = both[i].ask(t, request{Format: c.format, Columns: u.of[c.format], Files: c.files})
			done <- i
		}()
	}
	<-done
	<-done
	for i, r := range both {
		if errs[i] != nil {
			t.Fatal(errs[i])
		}
		c.schemas(r, answers[i])
		if err := answers[i].rows(func(row row) { c.row(t, i, row) }); err != nil {
			t.Fatalf("%s: %v", r.name, err)
		}
		a := &answers[i]
		t.Logf("%s: %s %s read %d %s objects, %d rows, in %.1f s, %.1f s of CPU, at most %d MB", sink, r.name, strings.TrimPrefix(a.Version, "v"),
			len(c.files), c.format, c.total[i], a.took.Seconds(), a.used.Seconds(), a.memory>>20)
	}
	ids := c.ids()
	for _, f := range c.found {
		t.Errorf("%s: %s", c.where, f)
	}
	if c.more > 0 {
		t.Errorf("%s: and %d more", c.where, c.more)
	}
	return ids
}

// IDs has DuckDB count the ids in a sink's objects, and look at nothing else.
func IDs(t testing.TB, dir, sink string) harness.IDs {
	t.Helper()
	c := &check{format: ndjson}
	c.objects(t, dir, sink)
	ids := harness.IDs{}
	if len(c.files) == 0 {
		return ids
	}
	a, err := both[0].ask(t, request{Format: c.format, Columns: columns([]string{"event_id"}), Files: c.files})
	if err == nil {
		err = a.rows(func(r row) { ids[r.id]++ })
	}
	if err != nil {
		t.Fatal(err)
	}
	return ids
}

// Each has DuckDB read Parquet objects and calls with the id of each event in
// each of them. Unlike the others it may be called beside the test, and leaves
// nothing on the disk: it is for runs of hours.
func Each(t testing.TB, files []string, call func(file, id string)) error {
	a, err := both[0].ask(t, request{Format: parquet, Columns: columns([]string{"event_id"}), Files: files})
	if err != nil {
		return err
	}
	err = a.rows(func(r row) { call(files[r.file], r.id) })
	return errors.Join(err, os.RemoveAll(filepath.Dir(a.out)))
}

// check is one call of Check.
type check struct {
	*Truth
	where   string
	format  string
	files   []string
	tenants []string // of the files, by their paths
	total   [2]int
	shown   bool // the columns of the first row that differs
	found   []string
	more    int
}

// wrong notes what fails the test; the first few are enough.
func (c *check) wrong(format string, args ...any) {
	if len(c.found) < 10 {
		c.found = append(c.found, fmt.Sprintf(format, args...))
	} else {
		c.more++
	}
}

// objects finds the sink's.
func (c *check) objects(t testing.TB, dir, sink string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.Contains(path, "/sink="+sink+"/") || strings.HasSuffix(path, ".manifest.json") {
			return err
		}
		if strings.HasSuffix(path, ".parquet") {
			c.format = parquet
		}
		_, tenant, _ := strings.Cut(path, "/tenant=")
		tenant, _, _ = strings.Cut(tenant, "/")
		c.files, c.tenants = append(c.files, path), append(c.tenants, tenant)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// schemas holds every object to the schema.
func (c *check) schemas(r reader, a answer) {
	if c.format != parquet {
		return
	}
	files := 0
	for _, s := range a.Schemas {
		files += len(s.Files)
		for _, d := range differences(leaves(c.of[parquet], "", 0, 0), s.Leaves) {
			c.wrong("%s: %d files such as %s: leaf %s", r.name, len(s.Files), filepath.Base(c.files[s.Files[0]]), d)
		}
		for _, d := range differences(r.types.all(c.of[parquet]), s.Types) {
			c.wrong("%s: %d files such as %s: column %s", r.name, len(s.Files), filepath.Base(c.files[s.Files[0]]), d)
		}
	}
	if files != len(c.files) {
		c.wrong("%s gave the schema of %d files, there are %d", r.name, files, len(c.files))
	}
}

// differences compares two lists, place by place.
func differences(want, got []string) (out []string) {
	for i := range max(len(want), len(got)) {
		w, g := "none", "none"
		if i < len(want) {
			w = want[i]
		}
		if i < len(got) {
			g = got[i]
		}
		if w != g {
			out = append(out, fmt.Sprintf("%d is %q, want %q", i, g, w))
		}
	}
	return out
}

// row holds a row that reader i found to its event.
func (c *check) row(t testing.TB, i int, r row) {
	t.Helper()
	c.total[i]++
	name, file := both[i].name, filepath.Base(c.files[r.file])
	e := c.events[r.id]
	if e == nil {
		c.wrong("%s: %s holds %q, which nobody made", name, file, r.id)
		return
	}
	e.seen[i]++
	if e.tenant != c.tenants[r.file] {
		c.wrong("%s: %s holds %s of tenant %s", name, c.files[r.file], r.id, e.tenant)
	}
	for k := range e.times {
		if e.times[k] == 0 {
			e.times[k] = r.times[k]
		}
		if e.times[k] != r.times[k] || r.times[k] <= 0 && c.has(apart[k]) {
			c.wrong("%s: %s: %s of %s is %d, elsewhere %d", name, file, apart[k], r.id, r.times[k], e.times[k])
		}
	}
	want := e.digests[0]
	if c.format == ndjson {
		want = e.digests[1]
	}
	if r.digest != want {
		c.wrong("%s: %s: %s is another event than was made%s", name, file, r.id, c.explain(t, i, r))
	}
}

// explain says in which columns a row differs; it reads the object once more,
// for the first such row only.
func (c *check) explain(t testing.TB, i int, r row) string {
	t.Helper()
	if c.shown {
		return ""
	}
	c.shown = true
	a, err := both[i].ask(t, request{Format: c.format, Columns: c.of[c.format], Files: []string{c.files[r.file]}, Whole: true})
	if err != nil {
		return ": " + err.Error()
	}
	got, err := a.texts(r.id)
	if err != nil {
		return ": " + err.Error()
	}
	var names []string
	for _, col := range c.of[c.format] {
		if !slices.Contains(apart, col.Name) {
			names = append(names, col.Name)
		}
	}
	var out strings.Builder
	for k, w := range c.texts(r.id, c.format) {
		if k < len(got) && got[k] != w {
			fmt.Fprintf(&out, "; %s: got %q, want %q", names[k], got[k], w)
		}
	}
	return out.String()
}

// ids counts the rows of each event, and forgets them for the next check. Both
// readers must have found the same.
func (c *check) ids() harness.IDs {
	ids := harness.IDs{}
	for id, e := range c.events {
		if e.seen[0] != e.seen[1] {
			c.wrong("%s was read %d times by DuckDB, %d times by pyarrow", id, e.seen[0], e.seen[1])
		}
		if n := max(e.seen[0], e.seen[1]); n > 0 {
			ids[id] = n
		}
		e.seen = [2]int{}
	}
	return ids
}
