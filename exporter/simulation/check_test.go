package simulation_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/parquet-go/parquet-go"

	"datasync/exporter/kinesis/kinesistest"
	"datasync/formats/compress"
)

// check compares what is at the sinks with what the model says must be there.
func (w *world) check(r *result) {
	sure, maybe := w.accepted()
	r.sure, r.maybe = len(sure), len(maybe)
	files := w.files()
	for _, t := range w.plan.tenants {
		var order []string
		for _, s := range w.plan.sinks {
			if s.tenant == t && s.full {
				order = w.ids(s, w.dropsOf(s, files))
			}
		}
		w.checkOrder(t, order, sure, maybe)
		for _, s := range w.plan.sinks {
			if s.tenant == t && (!s.late || s.since > 0) {
				w.checkSink(s, order, files, r)
			}
		}
	}
}

// checkOrder holds the journal's order, as the full sink shows it, to the posts.
func (w *world) checkOrder(tenant string, order []string, sure, maybe map[string]*post) {
	events := w.eventsOf(tenant)
	at := map[string]int{}
	for i, id := range order {
		if _, twice := at[id]; twice {
			w.wrong("%s/all: %s is there twice", tenant, id)
		}
		at[id] = i
		if events[id] == nil {
			w.wrong("%s/all: %s is foreign", tenant, id)
		} else if sure[id] == nil && maybe[id] == nil {
			w.wrong("%s/all: %s was refused", tenant, id)
		}
	}
	for id := range events {
		if _, there := at[id]; !there && sure[id] != nil {
			w.wrong("%s/all: %s was answered with 200 and is lost", tenant, id)
		}
	}
	// Within a post the order is that of its lines, and between posts one that
	// was answered before another was sent comes first.
	latest, by := time.Duration(0), ""
	for _, id := range slices.Backward(order) {
		p := sure[id]
		if p == nil {
			continue
		}
		if by != "" && p.sent > latest {
			w.wrong("%s/all: %s comes before %s, which was answered before it was sent", tenant, id, by)
		}
		if latest == 0 || p.answered < latest {
			latest, by = p.answered, id
		}
	}
	for _, p := range w.posts {
		for i := 1; i < len(p.events) && p.tenant == tenant; i++ {
			a, one := at[p.events[i-1].id]
			b, other := at[p.events[i].id]
			if one != other || one && a >= b {
				w.wrong("%s/all: %s and %s of one post: %d %v, %d %v", tenant, p.events[i-1].id, p.events[i].id, a, one, b, other)
			}
		}
	}
}

// checkSink holds one sink to the journal's order.
func (w *world) checkSink(s *sinkPlan, order []string, files map[string][]byte, r *result) {
	events := w.eventsOf(s.tenant)
	var want []string
	for _, id := range order {
		if e := events[id]; e != nil && s.wants(e) {
			want = append(want, id)
		}
	}
	var got []string
	switch s.kind {
	case "dir", "s3":
		got = w.ids(s, w.dropsOf(s, files))
		if s.late {
			want = w.fromLate(s, want, got)
		}
		if !slices.Equal(got, want) {
			w.wrong("%s: %s", s.key(), differ(want, got))
		}
	case "emitter":
		s.receiver.mu.Lock()
		for _, l := range s.receiver.stored {
			got = append(got, eventID([]byte(l)))
		}
		s.receiver.mu.Unlock()
		if s.late {
			want = w.fromLate(s, want, got)
		}
		w.repeats(s, want, got)
	case "kinesis":
		got = w.fromStream(s, want, events)
	}
	r.delivered += len(want)
	r.repeats += len(got) - len(want)
}

// fromLate cuts what a late sink may have begun behind: it must begin no later
// than the first event that was sent after it was known.
func (w *world) fromLate(s *sinkPlan, want, got []string) []string {
	by := map[string]*post{}
	for _, p := range w.posts {
		for _, e := range p.events {
			by[e.id] = p
		}
	}
	for i, id := range want {
		if len(got) > 0 && id == got[0] {
			return want[i:]
		}
		if p := by[id]; p != nil && int64(p.sent) > s.since {
			w.wrong("%s: %s was sent after the sink was there, and is not the first", s.key(), id)
			return want[i:]
		}
	}
	return nil
}

// repeats holds a stream of lines to at least once, in order, a repeat
// beginning again at an earlier point.
func (w *world) repeats(s *sinkPlan, want, got []string) {
	at := map[string]int{}
	for i, id := range want {
		at[id] = i
	}
	most := -1
	for _, id := range got {
		i, ok := at[id]
		switch {
		case !ok:
			w.wrong("%s: %s is foreign there", s.key(), id)
			continue
		case i > most+1:
			w.wrong("%s: %s came before %s, which lies before it", s.key(), id, want[most+1])
		}
		most = max(most, i)
	}
	if most+1 < len(want) {
		w.wrong("%s: %d of %d are missing, from %s on", s.key(), len(want)-most-1, len(want), want[most+1])
	}
}

// fromStream reads a Kinesis stream and holds it to at least once; ordered ones
// also to the order of each key.
func (w *world) fromStream(s *sinkPlan, want []string, events map[string]*event) []string {
	var got []string
	name := s.tenant + "-" + s.name
	w.streams[name].Lock()
	for _, rec := range w.records[name] {
		es, err := kinesistest.Unpack(rec)
		if err != nil {
			w.wrong("%s: %v", s.key(), err)
		}
		for _, e := range es {
			got = append(got, eventID(e.Data))
		}
	}
	w.streams[name].Unlock()
	if s.late {
		first := math.MaxInt
		for i, id := range want {
			if slices.Contains(got, id) {
				first = min(first, i)
			}
		}
		if first < len(want) {
			want = w.fromLate(s, want, want[first:])
		} else {
			want = w.fromLate(s, want, nil)
		}
	}
	if !s.ordered {
		have := map[string]bool{}
		for _, id := range got {
			have[id] = true
			if !slices.Contains(want, id) {
				w.wrong("%s: %s is foreign there", s.key(), id)
			}
		}
		missing := slices.DeleteFunc(slices.Clone(want), func(id string) bool { return have[id] })
		if len(missing) > 0 {
			w.wrong("%s: %d of %d are missing, the first are %.5s", s.key(), len(missing), len(want), missing)
		}
		return got
	}
	for n := 1; n <= 5; n++ {
		ip := fmt.Sprintf("192.0.2.%d", n)
		of := func(ids []string) (out []string) {
			for _, id := range ids {
				if e := events[id]; e == nil || e.ip == ip {
					out = append(out, id)
				}
			}
			return out
		}
		w.repeats(s, of(want), of(got))
	}
	return got
}

func differ(want, got []string) string {
	missing, more := []string{}, []string{}
	for _, id := range want {
		if !slices.Contains(got, id) {
			missing = append(missing, id)
		}
	}
	count := map[string]int{}
	for _, id := range got {
		if count[id]++; count[id] > 1 || !slices.Contains(want, id) {
			more = append(more, id)
		}
	}
	return fmt.Sprintf("%d events wanted, %d there; missing %.5s, too many %.5s; or in another order", len(want), len(got), missing, more)
}

// files are those of all folders and buckets, by name.
func (w *world) files() map[string][]byte {
	all := map[string][]byte{}
	out := filepath.Join(w.plan.dir, "out")
	err := filepath.WalkDir(out, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		name, _ := filepath.Rel(out, path)
		all["dir "+name] = b
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		w.wrong("%v", err)
	}
	w.s3.mu.Lock()
	defer w.s3.mu.Unlock()
	for k, o := range w.s3.objects {
		all["s3 "+k] = o.body
		if n := w.s3.writes[k]; n != 1 && !strings.Contains(k, ".datasync-probe") && !strings.HasSuffix(k, "manifest.json") {
			w.wrong("s3 %s was written %d times", k, n)
		}
	}
	return all
}

var dropName = regexp.MustCompile(`/tenant=([^/]+)/sink=([^/]+)/dt=[^/]+/hour=[^/]+/[^/]*\.(\d{12})(\.[a-z.]+)$`)

// dropsOf are a sink's drops in the order of their numbers, which have no gap.
func (w *world) dropsOf(s *sinkPlan, files map[string][]byte) [][]byte {
	byNumber, manifests := map[int][]byte{}, map[int]bool{}
	for name, b := range files {
		kind, path, _ := strings.Cut(name, " ")
		m := dropName.FindStringSubmatch("/" + path)
		if m == nil {
			if !strings.Contains(name, ".datasync-") {
				w.wrong("%s is no name of a drop", name)
			}
			continue
		}
		if kind != s.kind || m[1] != s.tenant || m[2] != s.name {
			continue
		}
		n, _ := strconv.Atoi(m[3])
		if strings.HasSuffix(m[4], ".manifest.json") {
			manifests[n] = true
			continue
		}
		if m[4] != s.end {
			w.wrong("%s: %s does not end with %s", s.key(), name, s.end)
		}
		if byNumber[n] != nil {
			w.wrong("%s: there are two drops %d", s.key(), n)
		}
		byNumber[n] = b
	}
	var out [][]byte
	for n := 1; n <= len(byNumber); n++ {
		if byNumber[n] == nil {
			w.wrong("%s: there is no drop %d of %d", s.key(), n, len(byNumber))
		}
		if manifests[n] != s.manifest {
			w.wrong("%s: drop %d has a manifest: %v, want %v", s.key(), n, manifests[n], s.manifest)
		}
		out = append(out, byNumber[n])
	}
	return out
}

// ids are the ids of the events in drops.
func (w *world) ids(s *sinkPlan, drops [][]byte) (ids []string) {
	for _, b := range drops {
		if s.end == ".parquet" {
			rows, err := parquet.Read[struct {
				ID string `parquet:"event_id"`
			}](bytes.NewReader(b), int64(len(b)))
			if err != nil {
				w.wrong("%s: %v", s.key(), err)
			}
			for _, r := range rows {
				ids = append(ids, r.ID)
			}
			continue
		}
		if encoding := map[string]string{".ndjson.gz": "gzip", ".ndjson.zst": "zstd"}[s.end]; encoding != "" {
			z, err := compress.NewReader(bytes.NewReader(b), encoding, 1<<30)
			if err == nil {
				b, err = io.ReadAll(z)
				err = errors.Join(err, z.Close())
			}
			if err != nil {
				w.wrong("%s: %v", s.key(), err)
			}
		}
		for line := range bytes.Lines(b) {
			ids = append(ids, eventID(line))
		}
	}
	return ids
}
