package isolation

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"datasync/integration/harness"
)

// A journal of 8 MiB, and more than that of each feed: 2 KB an event that
// hardly compresses.
const (
	small   = "journal: {max_bytes: 8MiB}\n"
	perFeed = 4000
)

// TestFaultJournalFull: no tenant is over its share (there is one, or all are
// alike) and no sink takes anything. Every feed stops where the journal is
// full, through a kill -9 as well, and goes on by itself when there is room.
func TestFaultJournalFull(t *testing.T) {
	for _, tenants := range []int{1, 4} {
		t.Run(fmt.Sprintf("%d tenants alike", tenants), func(t *testing.T) { fullJournal(t, tenants) })
	}
}

func fullJournal(t *testing.T, tenants int) {
	kafka, producer := broker(t)
	r := newReceiver(t)
	s := service(t, kafka, small)
	for i := range tenants {
		tenant(s, fmt.Sprintf("t%d", i), "", r.sink("siem"))
	}
	rng := rand.New(rand.NewPCG(1, uint64(tenants)))
	feedAll := map[string][]string{}
	for _, feed := range []string{"kafka", "files", "edge"} {
		for i := range perFeed {
			feedAll[feed] = append(feedAll[feed], event(fmt.Sprintf("%s-%d", feed, i), fmt.Sprintf("t%d", i%tenants), noise(rng)))
		}
	}
	s.Up(30 * time.Second)
	produce(t, producer, feedAll["kafka"]...)
	if err := os.WriteFile(filepath.Join(s.Dir, "in", "a.ndjson"), []byte(strings.Join(feedAll["files"], "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := &poster{t: t, s: s, tenants: tenants, lines: feedAll["edge"]}
	p.start()
	harness.Until(t, time.Minute, "answer of 503", func() bool { return p.refused.Load() > 2 })
	stopped := stands(t, s)
	if stopped["kafka"] >= perFeed || stopped["files"] >= perFeed || stopped["edge"] >= perFeed {
		t.Errorf("a feed read all though the journal was full: %v", stopped)
	}
	if up := metrics(t, s, `datasync_journal_incidents_total{kind="full"}`); len(up) != 1 {
		t.Errorf("metrics do not say that the journal is full")
	}
	if l, ok := s.Ledger(); !ok || !l.Balanced {
		t.Errorf("the ledger does not balance: %+v", l.Feeds)
	}
	s.End(true)
	s.Up(30 * time.Second)
	stands(t, s) // still full, and still there
	r.up()
	p.wait()
	l := s.Delivered(3*perFeed, time.Minute)
	s.End(false)
	if l.Balanced = l.Balanced && s.Peak < 400<<20; !l.Balanced {
		t.Errorf("peak %d MB, ledger %+v", s.Peak>>20, l)
	}
	lost, ids := 0, r.ids()
	for feed := range feedAll {
		for i := range perFeed {
			if ids[fmt.Sprintf("%s-%d", feed, i)] == 0 {
				lost++
			}
		}
	}
	for _, k := range l.Sinks {
		if k.Expired != 0 {
			t.Errorf("%s lost %d though nobody was over", k.Tenant, k.Expired)
		}
	}
	if lost > 0 {
		t.Errorf("%d acknowledged events are lost", lost)
	}
	t.Logf("seed 1, %d tenants: %d events of 2 KB through a journal of 8 MiB, full at %v, killed; 503 answered %d times; lost %d; peak %d MB",
		tenants, 3*perFeed, stopped, p.refused.Load(), lost, s.Peak>>20)
}

// stands waits until no feed takes anything more, and says where each stands.
func stands(t *testing.T, s *harness.Service) map[string]int64 {
	t.Helper()
	var was map[string]int64
	since := time.Now()
	harness.Until(t, time.Minute, "standstill of the feeds", func() bool {
		l, ok := s.Ledger()
		now := map[string]int64{}
		for _, f := range l.Feeds {
			now[f.Feed] = f.Accepted
		}
		if !ok || fmt.Sprint(now) != fmt.Sprint(was) {
			was, since = now, time.Now()
		}
		return time.Since(since) > 2*time.Second
	})
	return was
}

// poster posts lines in batches, each until it is answered with 200.
type poster struct {
	t       *testing.T
	s       *harness.Service
	tenants int
	lines   []string
	refused atomic.Int64
	wg      sync.WaitGroup
}

// start posts round after round, in each a batch of every tenant: tenants that
// are alike are never more than a batch apart, an eighth of a share being more.
func (p *poster) start() {
	p.wg.Go(func() {
		const batch = 100
		mine := make([][]string, p.tenants)
		for i, line := range p.lines {
			mine[i%p.tenants] = append(mine[i%p.tenants], line)
		}
		for i := 0; i < len(mine[0]); i += batch {
			var round sync.WaitGroup
			for n := range mine {
				round.Go(func() {
					p.insist(fmt.Sprintf("t%d", n), strings.Join(mine[n][i:min(i+batch, len(mine[n]))], "\n"))
				})
			}
			round.Wait()
		}
	})
}

func (p *poster) insist(tenant, body string) {
	deadline := time.Now().Add(3 * time.Minute)
	for time.Now().Before(deadline) {
		a, err := post(ingest(p.s, tenant), "key-of-"+tenant, strings.NewReader(body))
		switch {
		case err != nil: // killed just now
		case a.status == http.StatusOK:
			return
		case a.status == http.StatusServiceUnavailable:
			if n, err := strconv.Atoi(a.retry); err != nil || n < 1 || !strings.Contains(a.body, "journal is full") && !strings.Contains(a.body, "stopping") {
				p.t.Errorf("503 with Retry-After %q: %s", a.retry, a.body)
			}
			p.refused.Add(1)
		default:
			p.t.Errorf("%+v", a)
			return
		}
		harness.Pause(500 * time.Millisecond)
	}
	p.t.Error("a body was never taken")
}

func (p *poster) wait() { p.wg.Wait() }

// TestFaultOneOverItsShare: one tenant's receiver is away while it floods, and
// another has a quota. They lose their oldest, which ledger, metrics and status
// tell at once; no feed is slowed and nobody else loses anything.
func TestFaultOneOverItsShare(t *testing.T) {
	r, away := newReceiver(t), newReceiver(t)
	s := service(t, "", "journal: {max_bytes: 32MiB}\n")
	tenant(s, "hog", "", away.sink("siem"))
	tenant(s, "capped", "quota: {journal_bytes: 1MiB}\n", away.sink("siem"))
	for i := range 4 {
		tenant(s, fmt.Sprintf("t%d", i), "", r.sink("siem"))
	}
	r.up()
	s.Up(30 * time.Second)
	rng := rand.New(rand.NewPCG(2, 1))
	sent := map[string]int{}
	worst := time.Duration(0)
	send := func(tenant string, n int) {
		var lines []string
		for range n {
			lines = append(lines, event(fmt.Sprintf("%s-%d", tenant, sent[tenant]), tenant, noise(rng)))
			sent[tenant]++
		}
		began := time.Now()
		if a, err := post(ingest(s, tenant), "key-of-"+tenant, strings.NewReader(strings.Join(lines, "\n"))); err != nil || a.status != http.StatusOK {
			t.Fatalf("%s: %v %+v", tenant, err, a)
		}
		worst = max(worst, time.Since(began))
	}
	for round := range 240 { // 54 MB of the hog, 5 of the capped, 11 of the others
		send("hog", 100)
		send("capped", 10)
		send(fmt.Sprintf("t%d", round%4), 20)
	}
	expired := waitExpired(t, s)
	for _, name := range []string{"hog", "capped"} {
		if m := metrics(t, s, fmt.Sprintf(`datasync_lane_events_total{outcome="expired",sink="siem",tenant=%q}`, name)); len(m) != 1 {
			t.Errorf("metrics do not count what expired of %s", name)
		}
	}
	if out := status(t, s); !regexp.MustCompile(`undelivered events expired: .*quota.*fair share`).MatchString(out) {
		t.Errorf("status does not explain what expired:\n%s", out)
	}
	away.up()
	total := 0
	for _, n := range sent {
		total += n
	}
	l := s.Delivered(int64(total), time.Minute)
	s.End(false)
	late, ids := away.ids(), r.ids()
	for _, k := range l.Sinks {
		switch got := int(k.Delivered); {
		case k.Received != int64(sent[k.Tenant]):
			t.Errorf("%s received %d of %d", k.Tenant, k.Received, sent[k.Tenant])
		case k.Tenant == "hog" || k.Tenant == "capped":
			// The lane held the first in its hands; the oldest behind them are
			// gone, and nothing behind those.
			first, gone := sent[k.Tenant], 0
			for i := range sent[k.Tenant] {
				if late[fmt.Sprintf("%s-%d", k.Tenant, i)] == 0 {
					first = min(first, i)
					gone++
				}
			}
			for i := first; i < first+gone; i++ {
				if late[fmt.Sprintf("%s-%d", k.Tenant, i)] > 0 {
					t.Fatalf("%s lost %d, and not the oldest: %d is there and %d is not", k.Tenant, gone, i, first)
				}
			}
			if int64(gone) != k.Expired || got+gone != sent[k.Tenant] {
				t.Errorf("%s: %d did not arrive, %d are counted as expired", k.Tenant, gone, k.Expired)
			}
		default:
			for i := range sent[k.Tenant] {
				if ids[fmt.Sprintf("%s-%d", k.Tenant, i)] == 0 || k.Expired > 0 {
					t.Fatalf("%s lost events, such as %d; %d expired", k.Tenant, i, k.Expired)
				}
			}
		}
	}
	if !l.Balanced {
		t.Errorf("the ledger does not balance: %+v", l)
	}
	t.Logf("seed 2: %d events, expired hog %d of %d, capped %d of %d, others 0; slowest answer %v; peak %d MB",
		total, expired["hog"], sent["hog"], expired["capped"], sent["capped"], worst.Round(time.Millisecond), s.Peak>>20)
}

// waitExpired waits until the ledger counts what expired, the lanes standing still.
func waitExpired(t *testing.T, s *harness.Service) map[string]int64 {
	t.Helper()
	n := map[string]int64{}
	harness.Until(t, 20*time.Second, "count of what expired", func() bool {
		l, _ := s.Ledger()
		for _, k := range l.Sinks {
			n[k.Tenant] = k.Expired
		}
		return n["hog"] > 0 && n["capped"] > 0 && l.Balanced
	})
	return n
}
