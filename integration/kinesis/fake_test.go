package kinesis

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"datasync/exporter/kinesis/kinesistest"
	"datasync/integration/harness"
	"datasync/integration/servers"
)

// fakes are the streams of all tenants in an account of our own fake, with what
// is read from them as it is stored.
type fakes struct {
	t       *testing.T
	account kinesistest.Account
	got     map[string][]*arrivals // by sink
	url     string
}

// sinkOptions are the ways to put, each a sink of every tenant.
var sinkOptions = map[string]string{"plain": "", "ordered": ", ordered: true", "packed": ", aggregate: true"}

// newFakes makes the streams of a source's tenants. The shards are few enough
// that their limits are what is waited for, and for a million events a minute.
func newFakes(t *testing.T, from *source, tenants int) *fakes {
	f := &fakes{t: t, account: kinesistest.Account{}, got: map[string][]*arrivals{}}
	total := len(from.tenant) - 1
	for i := 1; i <= tenants; i++ {
		shards := 1 + 14*from.of[uint16(i)]/total
		for sink := range sinkOptions {
			s := kinesistest.NewStream(tenantOf(i)+"-"+sink, shards, uint64(i))
			f.account[s.Name] = s
			a := newArrivals(from, s.Name, i)
			a.ordered = sink == "ordered"
			f.got[sink] = append(f.got[sink], a)
			s.Conditions = conditions(s)
			s.Stored = func(r kinesistest.Record) {
				a.records++
				events, err := kinesistest.Unpack(r)
				if err != nil {
					a.foreign++
					a.example = err.Error()
				}
				for _, e := range events {
					a.add(e.Key, e.Data)
				}
			}
		}
	}
	server := httptest.NewServer(http.HandlerFunc(f.account.ServeHTTP))
	t.Cleanup(server.Close)
	f.url = server.URL
	return f
}

// conditions are the service's limits, and more trouble than it makes: records
// that fail by themselves with every code it has for them and one it may have
// some day, calls that fail as a whole, and answers that never come.
func conditions(s *kinesistest.Stream) kinesistest.Conditions {
	whole := []struct {
		status int
		body   string
	}{
		{500, `{"__type":"InternalFailure"}`},
		{503, ``},
		{400, `{"__type":"LimitExceededException"}`},
		{400, `{"__type":"ProvisionedThroughputExceededException","message":"Rate exceeded"}`},
		{400, `{"__type":"KMSThrottlingException"}`},
	}
	return kinesistest.Conditions{
		RecordRate: kinesistest.ServiceRecords, ByteRate: kinesistest.ServiceBytes,
		Failing: 0.003, Codes: []string{"ProvisionedThroughputExceededException", "InternalFailure", "KMSThrottlingException", "SomethingNew"},
		Whole: func() (int, string) {
			if s.Rand.IntN(50) > 0 {
				return 200, ""
			}
			w := whole[s.Rand.IntN(len(whole))]
			return w.status, w.body
		},
		Losing: 0.02,
	}
}

// reshard splits and merges shards of one stream after the other until the test
// says stop; it keeps each near the number of shards that it began with.
func (f *fakes) reshard() (stop func()) {
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for split := true; ; split = !split {
			for _, s := range f.account {
				select {
				case <-quit:
					return
				case <-tick.C:
				}
				if split {
					s.Split()
				} else {
					s.Merge()
				}
			}
		}
	}()
	return sync.OnceFunc(func() { close(quit); <-done })
}

// TestAcceptFake: an acceptance's events, the million at full size, from the
// built program into streams that throttle as the service does, fail in part, as
// a whole and without an answer, and are split and merged on the way: plain,
// ordered and aggregated. Every event of every tenant arrives as it was made,
// in the order of its partition key where that was asked for.
func TestAcceptFake(t *testing.T) {
	const tenants, seed = 8, 13
	count := max(harness.Events(t), 100_000)
	servers.Credentials(t)
	s := harness.NewService(t, "")
	path := filepath.Join(s.Dir, "in", "a.ndjson")
	harness.Run(t, 0, "generate", "--rate", "0", "--count", fmt.Sprint(count), "--tenants", fmt.Sprint(tenants), "--seed", fmt.Sprint(seed), "--to", path)
	f := newFakes(t, readSource(t, path, count), tenants)
	sinks := ""
	for name, options := range sinkOptions {
		sinks += fmt.Sprintf("  - name: %[1]s\n    kinesis: {stream: \"{tenant}-%[1]s\", region: eu-west-1, endpoint: %[2]q, partition_key: client_ip%[3]s}\n", name, f.url, options)
	}
	s.Tenants(tenants, sinks)
	stop := f.reshard()
	defer stop()
	began := time.Now()
	s.Up(30 * time.Second)
	s.Delivered(int64(count), 15*time.Minute)
	took := time.Since(began)
	stop()
	s.End(false)
	f.want(count)
	t.Logf("%d events to three sinks each in %v: %.1f CPU s for a million deliveries, peak memory %d MB", count, took.Round(time.Second),
		s.Used.Seconds()/3/float64(count)*1e6, s.Peak>>20)
	if s.Peak > 500<<20 {
		t.Errorf("peak memory %d MB, at most 500 are allowed", s.Peak>>20)
	}
}

// want holds all streams to what they should have, and to have made the trouble
// that they are for.
func (f *fakes) want(count int) {
	f.t.Helper()
	var all kinesistest.Counts
	for sink, got := range f.got {
		var sum kinesistest.Counts
		have, records, repeats := 0, 0, 0
		for _, a := range got {
			repeats += a.want(f.t)
			have += a.have
			records += a.records
			add(&sum, f.account[a.name].Counts)
		}
		add(&all, sum)
		f.t.Logf("%s: %d events in %d records, %d repeats; %d calls (%d failed as a whole, %d were not answered), %d records throttled, %d failed by themselves, %d reshards",
			sink, have, records, repeats, sum.Calls, sum.Refused, sum.Lost, sum.Throttled, sum.Failed, sum.Reshards)
		if sink == "packed" && records*5 > count {
			f.t.Errorf("%d aggregated records for %d events: not even five to one", records, count)
		}
	}
	if all.Failed == 0 || all.Refused == 0 || all.Lost == 0 || all.Reshards == 0 || all.Throttled == 0 {
		f.t.Errorf("trouble of some kind was not made: %+v", all)
	}
}

func add(to *kinesistest.Counts, c kinesistest.Counts) {
	to.Calls += c.Calls
	to.Throttled += c.Throttled
	to.Failed += c.Failed
	to.Refused += c.Refused
	to.Lost += c.Lost
	to.Reshards += c.Reshards
}
