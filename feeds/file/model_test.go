package filefeed

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"datasync/feeds"
	"pgregory.net/rapid"
)

// model writes to a log as programs do (in pieces, rotated by renaming, copied
// and truncated) while feeds read it that stop or die at any point.
type model struct {
	t       *rapid.T
	dir     string
	now     time.Time
	w       *world
	f       *Feed
	n       int      // lines written
	rotated int      // files renamed
	wrote   []string // whole lines
	part    string   // of the line begun
}

func (m *model) log() string { return filepath.Join(m.dir, "a.log") }

func (m *model) append(text string) {
	f, err := os.OpenFile(m.log(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err == nil {
		_, err = f.WriteString(text)
		err = errors.Join(err, f.Close())
	}
	m.check(err)
}

func (m *model) check(err error) {
	if err != nil {
		m.t.Fatal(err)
	}
}

// line writes whole lines, or one in two pieces.
func (m *model) line(*rapid.T) {
	for range rapid.IntRange(1, 20).Draw(m.t, "lines") {
		m.n++
		l := m.part + fmt.Sprintf("%d:%s", m.n, strings.Repeat("x", rapid.IntRange(0, 70).Draw(m.t, "pad")))
		m.append(l[len(m.part):] + "\n")
		m.part = ""
		m.wrote = append(m.wrote, l)
	}
}

func (m *model) half(*rapid.T) {
	m.append("~")
	m.part += "~"
}

func (m *model) rename(*rapid.T) {
	if m.part != "" || !m.exists() {
		return
	}
	m.rotated++
	m.check(os.Rename(m.log(), filepath.Join(m.dir, fmt.Sprintf("a.%d.log", m.rotated))))
}

func (m *model) exists() bool {
	_, err := os.Stat(m.log())
	return err == nil
}

// truncate empties the log once all of it is read: what is not is lost to anyone.
func (m *model) truncate(*rapid.T) {
	if m.part != "" || !m.exists() {
		return
	}
	m.drain()
	m.check(os.Truncate(m.log(), 0))
}

func (m *model) pass(*rapid.T) {
	m.now = m.now.Add(time.Second)
	_, err := m.f.pass(context.Background())
	if errors.Is(err, feeds.ErrStopped) {
		m.restart(nil)
		return
	}
	m.check(err)
}

func (m *model) drain() {
	for range 200 {
		m.pass(nil)
	}
}

// restart lets a new feed go on with nothing but the facts.
func (m *model) restart(*rapid.T) {
	if m.f != nil {
		m.f.closeAll()
	}
	f, err := New(Options{Name: "in", Path: filepath.Join(m.dir, "*.log"), Format: "canonical", Intake: m.w, Facts: m.w,
		Follow: true, MaxEvent: 64, Poll: time.Nanosecond, BatchBytes: 1, Now: func() time.Time { return m.now }})
	m.check(err)
	m.f = f
}

func (m *model) refuse(*rapid.T) { m.w.errs = append(m.w.errs, feeds.ErrFull) }

func (m *model) die(*rapid.T) { m.w.errs = append(m.w.errs, feeds.ErrStopped) }

func (m *model) dieBehindTheCommit(*rapid.T) { m.w.crashAfter = true }

// TestNoLineIsLostOrTakenTwice is the promise of the offset in the same commit.
func TestNoLineIsLostOrTakenTwice(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		dir, err := os.MkdirTemp(t.TempDir(), "")
		m := &model{t: rt, dir: dir, now: time.Unix(1e9, 0), w: newWorld()}
		m.check(err)
		m.restart(nil)
		defer func() { m.f.closeAll() }()
		rt.Repeat(map[string]func(*rapid.T){
			"line": m.line, "half": m.half, "rename": m.rename, "truncate": m.truncate, "pass": m.pass,
			"restart": m.restart, "full": m.refuse, "die": m.die, "die behind": m.dieBehindTheCommit,
		})
		if m.part != "" {
			m.line(nil)
		}
		m.drain()
		got := m.w.values()
		slices.Sort(got)
		slices.Sort(m.wrote)
		if !slices.Equal(got, m.wrote) {
			rt.Fatalf("lines taken:\n%q\nwritten:\n%q", got, m.wrote)
		}
	})
}

func BenchmarkLines(b *testing.B) {
	dir := b.TempDir()
	line := `{"event_id":"x","pad":"` + strings.Repeat("p", 700) + "\"}\n"
	if err := os.WriteFile(filepath.Join(dir, "a.log"), []byte(strings.Repeat(line, 50_000)), 0o600); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(line)))
	b.ReportAllocs()
	for n := 0; n < b.N; n += 50_000 {
		w := &discard{}
		f, err := New(Options{Name: "in", Path: filepath.Join(dir, "*.log"), Format: "canonical", Intake: w, Facts: newWorld()})
		if err == nil {
			err = f.Run(context.Background())
		}
		if err != nil || w.n != 50_000 {
			b.Fatal(w.n, err)
		}
	}
}
