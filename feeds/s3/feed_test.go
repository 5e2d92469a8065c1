package s3feed

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"datasync/feeds"
	"datasync/feeds/journal"
	"datasync/formats/compress"
)

func zipped(text string) string {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = z.Write([]byte(text))
	_ = z.Close()
	return b.String()
}

// lines are n events, and what is taken of them.
func lines(from, n int) (text string, want []string) {
	var b strings.Builder
	for i := from; i < from+n; i++ {
		fmt.Fprintf(&b, "{\"n\":%d}\n", i)
		want = append(want, fmt.Sprintf("acme/{\"n\":%d}", i))
	}
	return b.String(), want
}

// want holds that what was taken is that, each once, and in order within an object.
func (w *world) want(t *testing.T, want []string) {
	t.Helper()
	times := map[string]int{}
	for _, l := range w.taken() {
		times[l]++
	}
	for _, l := range want {
		times[l]--
	}
	for l, n := range times {
		if n != 0 {
			t.Errorf("%.100q was taken %+d times too often", l, n)
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for id, n := range w.ids {
		if n > 1 && id != "" {
			t.Errorf("id %q was given %d times", id, n)
		}
	}
}

func TestObjectsAreReadOnce(t *testing.T) {
	a, w := newAWS(t), &world{}
	var want []string
	add := func(key, content string, lines []string) {
		a.announce(key, content)
		want = append(want, lines...)
	}
	text, ls := lines(0, 1000)
	add("plain.ndjson", text, ls)
	text, ls = lines(1000, 1000)
	add("AWSLogs/x/zipped.gz", zipped(text), ls)
	text, ls = lines(2000, 10)
	add("zstd", string(compress.AppendZstd(nil, []byte(text))), ls)
	text, ls = lines(2010, 10)
	add("an array.json", "["+strings.ReplaceAll(strings.TrimSpace(text), "\n", ",\n")+"]", ls)
	add("empty", "", nil)
	a.send(`{"Service":"Amazon S3","Event":"s3:TestEvent"}`)
	f, stop := run(t, a, w, nil)
	until(t, "an empty queue", func() bool { return a.left() == 0 })
	// The same again, and an object that was replaced by another content.
	n := len(a.gets)
	for _, m := range slices.Clone(a.messages) {
		a.send(m.body)
	}
	until(t, "an empty queue", func() bool { return a.left() == 0 })
	if len(a.gets) != n {
		t.Errorf("read again: %q", a.gets[n:])
	}
	text, ls = lines(3000, 5)
	add("plain.ndjson", text, ls)
	until(t, "an empty queue", func() bool { return a.left() == 0 })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	w.want(t, want)
	if s := f.Status(); s.Objects != 6 || s.Messages != 13 || s.Poison != 0 || s.Failed != 0 || len(w.told) > 0 {
		t.Errorf("%+v, told %q", s, w.told)
	}
	for key := range w.Facts(atPrefix) {
		t.Errorf("a part is still remembered: %s", key)
	}
}

// Killed at every submit of an object, and with its bytes breaking off: it is
// gone on with, and nothing of it is taken twice.
func TestRestartsWithinAnObject(t *testing.T) {
	long := strings.Repeat("x", 300)
	for name, content := range map[string]func(text string) string{
		"lines": func(s string) string { return s },
		"gzip":  zipped,
		"array": func(s string) string { return "[" + strings.ReplaceAll(strings.TrimSpace(s), "\n", ",") + "]" },
		"gzip array": func(s string) string {
			return zipped("[" + strings.ReplaceAll(strings.TrimSpace(s), "\n", ",\n") + "]")
		},
		"long lines": func(s string) string { return strings.ReplaceAll(s, "{\"n\":5}", long) },
		"long elements": func(s string) string {
			return strings.ReplaceAll("["+strings.ReplaceAll(strings.TrimSpace(s), "\n", ",")+"]", "{\"n\":5}", `{"a":["`+long+`",["]"]]}`)
		},
	} {
		t.Run(name, func(t *testing.T) {
			a, w := newAWS(t), &world{}
			text, want := lines(0, 200)
			body := content(text)
			switch name {
			case "long lines":
				want[5] = "acme/" + long[:100] + "|record is longer than 0 KiB; this is its beginning"
			case "long elements":
				want[5] = `acme/{"a":["` + long[:93] + "|record is longer than 0 KiB; this is its beginning"
			}
			a.announce("o", body)
			lives := 0
			for a.left() > 0 {
				if lives++; lives > 500 {
					t.Fatalf("no end: %d lines", len(w.taken()))
				}
				submits := 0
				w.before = func([]string) error {
					if submits++; submits > 3 {
						return feeds.ErrStopped
					}
					return nil
				}
				if lives%3 == 0 {
					a.do(func() { a.cut["logs/o"] = len(body) / 3 })
				}
				a.do(func() { a.messages[0].visible = time.Time{} })
				_, stop := run(t, a, w, func(o *Options) { o.BatchBytes, o.MaxEvent, o.Workers = 64, 100, 1 })
				until(t, "the end of this life", func() bool {
					w.mu.Lock()
					defer w.mu.Unlock()
					a.mu.Lock()
					defer a.mu.Unlock()
					return submits > 3 || a.messages[0].deleted
				})
				if err := stop(); err != nil && !errors.Is(err, feeds.ErrStopped) {
					t.Fatal(err)
				}
			}
			w.want(t, want)
			if name == "lines" && !slices.Contains(w.taken(), want[199]) || lives < 2 {
				t.Errorf("%d lives", lives)
			}
		})
	}
}

func TestPiecesAreBounded(t *testing.T) {
	a, w := newAWS(t), &world{}
	text, want := lines(0, 200_000)
	a.announce("big.gz", zipped(text))
	_, stop := run(t, a, w, nil)
	until(t, "an empty queue", func() bool { return a.left() == 0 })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	w.want(t, want)
	if w.most > 2<<20 || len(want) != len(w.taken()) {
		t.Errorf("%d bytes in one submit", w.most)
	}
}

func TestPoison(t *testing.T) {
	a, w := newAWS(t), &world{}
	a.send("hello")
	a.announce("gone", "x")
	a.announce("replaced", "{\"old\":1}\n")
	a.put("replaced", "{\"new\":1}\n")
	a.announce("table.parquet", "PAR1\x15\x00\x15")
	text, want := lines(0, 100)
	whole := zipped(text)
	a.announce("damaged.gz", whole[:len(whole)-6])
	a.do(func() { delete(a.objects, "logs/gone") })
	f, stop := run(t, a, w, nil)
	until(t, "an empty queue", func() bool { return a.left() == 0 })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	got := w.taken()
	for _, part := range []string{"acme/hello|message is no S3 event notification",
		"acme/s3://logs/gone|it cannot be read any more: s3://logs/gone: NoSuchKey",
		"acme/s3://logs/replaced|it cannot be read any more: s3://logs/replaced: it was replaced since it was announced",
		"acme/s3://logs/table.parquet|it cannot be read any more: it is neither text nor compressed",
		"acme/s3://logs/damaged.gz|it cannot be read any more behind byte "} {
		if !slices.ContainsFunc(got, func(s string) bool { return strings.HasPrefix(s, part) }) {
			t.Errorf("nothing of %q", part)
		}
	}
	if !slices.Contains(got, want[0]) {
		t.Error("what came before the damage is not taken")
	}
	if s := f.Status(); s.Poison != 1 || s.Messages != 5 {
		t.Errorf("%+v", s)
	}
}

// What may not be read is tried again, told once, and read once it may be.
func TestForbiddenObjects(t *testing.T) {
	a, w := newAWS(t), &world{}
	text, want := lines(0, 3)
	a.fail = func(op, _ string) (int, string) {
		if op == "GetObject" {
			return 403, "AccessDenied"
		}
		return 0, ""
	}
	a.announce("o", text)
	_, stop := run(t, a, w, nil)
	until(t, "a third try", func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.messages[0].visible = time.Time{}
		return a.calls["GetObject"] >= 3
	})
	a.do(func() { a.fail = nil })
	until(t, "an empty queue", func() bool {
		a.do(func() { a.messages[0].visible = time.Time{} })
		return a.left() == 0
	})
	until(t, "word of the end", func() bool { return w.said("all is well again") == 1 })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	w.want(t, want)
	if w.said("s3 feed waf: AccessDenied: as the test wants it (allow sqs:ReceiveMessage") != 1 || len(w.told) != 2 {
		t.Errorf("told %q", w.told)
	}
}

// After a day it becomes an entry of the quarantine, and the message goes.
func TestForbiddenForADay(t *testing.T) {
	a, w := newAWS(t), &world{}
	a.fail = func(op, _ string) (int, string) {
		if op == "GetObject" {
			return 403, "AccessDenied"
		}
		return 0, ""
	}
	a.announce("o", "{}\n")
	_, stop := run(t, a, w, func(o *Options) { o.GiveUp = time.Nanosecond })
	until(t, "an empty queue", func() bool { return a.left() == 0 })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if got := w.taken(); len(got) != 1 || !strings.HasPrefix(got[0], "acme/s3://logs/o|it was tried for 1ns: AccessDenied") {
		t.Errorf("taken %q", got)
	}
}

func TestFullJournalAndQueueFailures(t *testing.T) {
	a, w := newAWS(t), &world{}
	text, want := lines(0, 3)
	full, n := true, 0
	w.before = func([]string) error {
		if full {
			return feeds.ErrFull
		}
		return nil
	}
	a.fail = func(op, _ string) (int, string) {
		if n++; op == "ReceiveMessage" && n%2 == 0 || op == "DeleteMessage" && n%3 == 0 {
			return 500, "InternalError"
		}
		return 0, ""
	}
	a.announce("o", text)
	_, stop := run(t, a, w, nil)
	until(t, "word of the full journal, and the message hidden on", func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		return w.said("journal is full") == 1 && a.calls["ChangeMessageVisibility"] >= 2
	})
	if a.left() != 1 {
		t.Fatal("the message is gone, and nothing is durable")
	}
	w.mu.Lock()
	full = false
	w.mu.Unlock()
	until(t, "an empty queue", func() bool {
		a.do(func() { a.messages[0].visible = time.Time{} })
		return a.left() == 0
	})
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	w.want(t, want)
}

func TestWhatWasReadIsForgottenInTime(t *testing.T) {
	w := &world{}
	now := time.UnixMilli(1_800_000_000_000)
	old, recent := now.Add(-5*24*time.Hour), now.Add(-time.Hour)
	w.PutLater(doneFacts("old", old)...)
	w.PutLater(doneFacts("recent", recent)...)
	w.PutLater(journal.Fact{Key: donePrefix + "broken", Value: []byte{}}, partFact("left", place{At: now.Add(-20 * 24 * time.Hour).UnixMilli()}), partFact("part", place{At: old.UnixMilli()}))
	m := newMemory(w)
	m.sweep(now)
	for id, want := range map[string]bool{"old": false, "broken": false, "recent": true} {
		if m.done(id) != want {
			t.Errorf("%s is remembered: %v", id, !want)
		}
	}
	if m.place("left").At != 0 || m.place("part").At == 0 {
		t.Error("parts are forgotten wrongly")
	}
	for i := range maxDone + 10 {
		id := fmt.Sprint(i)
		w.PutLater(doneFacts(id, now)...)
		m.age(id, now)
	}
	if m.done("9") || m.done("recent") || !m.done("50") || len(m.aging) != maxDone {
		t.Errorf("%d are remembered", len(m.aging))
	}
}

func TestOptions(t *testing.T) {
	w := &world{}
	good := Options{Name: "waf", Queue: "https://sqs.eu-west-1.amazonaws.com/1/q", Format: "canonical", Intake: w, Facts: w}
	if _, err := New(good); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Options){
		"name": func(o *Options) { o.Name = "A" }, "queue": func(o *Options) { o.Queue = "logs" }, "intake": func(o *Options) { o.Intake = nil },
	} {
		o := good
		change(&o)
		if _, err := New(o); err == nil || !strings.HasPrefix(err.Error(), "s3 feed") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Lines that belong together stay together, behind the lines that name their
// fields, in every part of an object and after every kill.
func TestLinesThatBelongTogether(t *testing.T) {
	const head = "#Version: 1.0\n#Fields: date time c-ip\n"
	var want []string
	for i := range 200 {
		want = append(want, fmt.Sprintf("2026-11-22\t00:00:00\t10.0.0.%d", i))
	}
	body := head + strings.Join(want, "\n") + "\n"
	for name, content := range map[string]string{"plain": body, "gzip": zipped(body), "byte order mark": string(bom) + body, "no end": strings.TrimSpace(body)} {
		t.Run(name, func(t *testing.T) {
			a, w := newAWS(t), &world{}
			a.announce("o", content)
			lives := 0
			for ; a.left() > 0 && lives < 100; lives++ {
				submits := 0
				w.before = func([]string) error {
					if submits++; submits > 3 {
						return feeds.ErrStopped
					}
					return nil
				}
				a.do(func() { a.messages[0].visible = time.Time{} })
				_, stop := run(t, a, w, func(o *Options) { o.Format, o.BatchBytes, o.MaxEvent, o.Workers = "cloudfront", 200, 100, 1 })
				until(t, "the end of this life", func() bool {
					w.mu.Lock()
					defer w.mu.Unlock()
					a.mu.Lock()
					defer a.mu.Unlock()
					return submits > 3 || a.messages[0].deleted
				})
				if err := stop(); err != nil && !errors.Is(err, feeds.ErrStopped) {
					t.Fatal(err)
				}
			}
			var got []string
			for _, l := range w.taken() {
				rows, ok := strings.CutPrefix(l, "acme/"+head)
				if !ok {
					t.Fatalf("without its head: %q", l)
				}
				got = append(got, strings.Split(rows, "\n")...)
			}
			if !slices.Equal(got, want) || len(w.taken()) == len(want) || lives < 2 {
				t.Errorf("%d lines in %d records and %d lives: %.300q", len(got), len(w.taken()), lives, got)
			}
		})
	}
}
