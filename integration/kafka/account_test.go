package kafka

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"datasync/integration/harness"
)

// spot is where a record lies in its topic.
type spot struct {
	partition int32
	offset    int64
}

// written is what was written to a topic: where each event lies.
type written struct {
	topic string
	mu    sync.Mutex
	at    map[string]spot
}

func newWritten(topic string) *written { return &written{topic: topic, at: map[string]spot{}} }

// write writes lines and waits until all are written; it may be called from any goroutine.
func (w *written) write(t *testing.T, c *kgo.Client, lines [][]byte) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for _, l := range lines {
		c.Produce(ctx, &kgo.Record{Topic: w.topic, Value: l}, func(r *kgo.Record, err error) {
			if err != nil {
				t.Errorf("produce: %v", err)
				return
			}
			w.mu.Lock()
			defer w.mu.Unlock()
			w.at[idOf(r.Value)] = spot{r.Partition, r.Offset}
		})
	}
	if err := c.Flush(ctx); err != nil {
		t.Errorf("produce: %v", err)
	}
}

func (w *written) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.at)
}

func idOf(line []byte) string {
	_, rest, _ := bytes.Cut(line, []byte(`"event_id":"`))
	id, _, _ := bytes.Cut(rest, []byte(`"`))
	return string(id)
}

// read waits until a group has committed all that was written.
func (w *written) read(t *testing.T, c *kgo.Client, group string) {
	t.Helper()
	adm := kadm.NewClient(c)
	harness.Until(t, 2*time.Minute, "commit of the last offset of "+w.topic, func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		ends, err := adm.ListEndOffsets(ctx, w.topic)
		at, err2 := adm.FetchOffsets(ctx, group)
		all := err == nil && err2 == nil
		ends.Each(func(e kadm.ListedOffset) {
			o, ok := at.Lookup(e.Topic, e.Partition)
			all = all && (e.Offset == 0 || ok && o.At == e.Offset)
		})
		return all
	})
}

// gaps are those that a service's ledger has named so far. It names the newest
// hundred, so a long test looks from time to time.
type gaps struct {
	seen   map[harness.Gap]bool
	missed int64
}

func (g *gaps) look(t *testing.T, s *harness.Service) {
	t.Helper()
	if g.seen == nil {
		g.seen = map[harness.Gap]bool{}
	}
	var l harness.Ledger
	harness.Until(t, 30*time.Second, "the ledger", func() (ok bool) { l, ok = s.Ledger(); return ok })
	g.missed = 0
	for _, f := range l.Feeds {
		g.missed += f.Missed
		for _, gap := range f.Gaps {
			g.seen[gap] = true
		}
	}
}

// account holds the drops of a service to what was written: up to where it
// came in each partition, each record is in them once or in a gap that the
// ledger names, and never in both. That is: nothing is skipped in silence.
func (w *written) account(t *testing.T, s *harness.Service, g *gaps) harness.IDs {
	t.Helper()
	_, ids := received(t, s)
	missed, top := int64(0), map[int32]int64{}
	for gap := range g.seen {
		if gap.Topic != w.topic {
			t.Errorf("a gap of another topic: %+v", gap)
		}
		missed += gap.To - gap.From
		top[int32(gap.Partition)] = max(top[int32(gap.Partition)], gap.To)
	}
	if missed != g.missed {
		t.Errorf("the ledger counts %d missed records, and names %d", g.missed, missed)
	}
	for id := range ids {
		at, ok := w.at[id]
		if !ok {
			t.Fatalf("%s was never written to %s", id, w.topic)
		}
		top[at.partition] = max(top[at.partition], at.offset+1)
	}
	for id, at := range w.at {
		named := 0
		for gap := range g.seen {
			if int32(gap.Partition) == at.partition && gap.From <= at.offset && at.offset < gap.To {
				named++
			}
		}
		if got := ids[id]; at.offset < top[at.partition] && got+named != 1 {
			t.Fatalf("%s (partition %d, offset %d) is there %d times, and in %d gaps", id, at.partition, at.offset, got, named)
		}
	}
	return ids
}

// named holds the log and the metrics to the gaps of the ledger.
func named(t *testing.T, s *harness.Service, g *gaps, why string) {
	t.Helper()
	for gap := range g.seen {
		says(t, s, 10*time.Second, fmt.Sprintf("offsets %d to %d (%d) of topic %s partition %d were not read: %s",
			gap.From, gap.To-1, gap.To-gap.From, gap.Topic, gap.Partition, why))
	}
	resp, err := http.Get("http://" + s.Admin + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if want := fmt.Sprintf("\ndatasync_journal_incidents_total{kind=\"kafka-gap\"} %d\n", len(g.seen)); err != nil || !strings.Contains(string(body), want) {
		t.Errorf("the metrics do not say %q (%v)", want, err)
	}
}
