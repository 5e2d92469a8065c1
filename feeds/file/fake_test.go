package filefeed

import (
	"context"
	"errors"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"datasync/feeds"
	"datasync/feeds/intake"
	"datasync/feeds/journal"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a journal that survives the feeds that use it: records and facts.
type world struct {
	records []feeds.Record
	facts   map[string][]byte
	// errs are what the next Submits answer, nothing kept; crashAfter keeps and
	// then fails, as a process that dies before it hears of the commit.
	errs       []error
	crashAfter bool
	submits    int
	got        chan struct{} // told of each Submit, where not nil
}

func newWorld() *world { return &world{facts: map[string][]byte{}} }

func (w *world) Submit(_ context.Context, r *intake.Request) (intake.Result, error) {
	w.submits++
	if len(w.errs) > 0 {
		err := w.errs[0]
		w.errs = w.errs[1:]
		return intake.Result{}, err
	}
	res := intake.Result{}
	for rec := range r.Records {
		rec.Value = []byte(string(rec.Value))
		w.records = append(w.records, rec)
		res.Accepted++
	}
	w.PutLater(r.Facts(&res)...)
	if w.got != nil {
		w.got <- struct{}{}
	}
	if w.crashAfter {
		w.crashAfter = false
		return intake.Result{}, feeds.ErrStopped
	}
	return res, nil
}

func (w *world) Facts(prefix string) iter.Seq2[string, []byte] {
	return func(yield func(string, []byte) bool) {
		for k, v := range maps.Clone(w.facts) {
			if strings.HasPrefix(k, prefix) && !yield(k, v) {
				return
			}
		}
	}
}

func (w *world) PutLater(facts ...journal.Fact) {
	for _, f := range facts {
		if len(f.Value) == 0 {
			delete(w.facts, f.Key)
		} else {
			w.facts[f.Key] = f.Value
		}
	}
}

func (w *world) values() []string {
	var all []string
	for _, r := range w.records {
		all = append(all, string(r.Value))
	}
	return all
}

// feed makes a feed on this world; its clock is now.
func (w *world) feed(t testing.TB, path string, follow bool, change func(*Options)) *Feed {
	t.Helper()
	o := Options{Name: "in", Path: path, Format: "canonical", Intake: w, Facts: w, Follow: follow,
		MaxEvent: 64, BatchBytes: 1, Poll: time.Nanosecond,
		OnError: func(err error) { t.Errorf("told: %v", err) }}
	if change != nil {
		change(&o)
	}
	f, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// settle runs passes until nothing comes any more.
func settle(t testing.TB, f *Feed) {
	t.Helper()
	for range 10_000 {
		more, err := f.pass(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		if !more {
			return
		}
	}
	t.Fatal("it never comes to rest")
}

func write(t testing.TB, path, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err == nil {
		_, err = f.WriteString(text)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}

func want(t testing.TB, w *world, lines ...string) {
	t.Helper()
	if got := strings.Join(w.values(), "|"); got != strings.Join(lines, "|") {
		t.Fatalf("lines taken:\n %s\nwant:\n %s", got, strings.Join(lines, "|"))
	}
}

func glob(t testing.TB) (dir, pattern string) {
	dir = t.TempDir()
	return dir, filepath.Join(dir, "*.log")
}

// discard takes records and keeps nothing.
type discard struct{ n int }

func (d *discard) Submit(_ context.Context, r *intake.Request) (intake.Result, error) {
	for range r.Records {
		d.n++
	}
	res := intake.Result{Accepted: d.n}
	r.Facts(&res)
	return res, nil
}
