package bench

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"datasync/integration/harness"
	"datasync/integration/servers"
)

// singlePosters is how many requests of one event there are at a time.
const singlePosters = 64

// singles are requests of one event each, and how long they took to be answered.
func singles(t *testing.T, b *bed, n int) source {
	t.Helper()
	bodies := arrays(t, b.file(n), 1, b.tenants)
	return source{feed: httpFeed, begin: func(s *harness.Service) {
		var took spread
		postAll(t, s, bodies, singlePosters, took.add)
		t.Logf("answered: %v", &took)
	}}
}

// spread is how long things took.
type spread struct {
	mu  sync.Mutex
	all []time.Duration
}

func (s *spread) add(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, d)
}

// at is the quantile q.
func (s *spread) at(q float64) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.all) == 0 {
		return 0
	}
	slices.Sort(s.all)
	return s.all[int(float64(len(s.all)-1)*q)]
}

// String is for the log.
func (s *spread) String() string {
	return fmt.Sprintf("p50 %.1f ms, p99 %.1f ms, p99.9 %.1f ms, longest %.1f ms (%d)", ms(s.at(0.5)), ms(s.at(0.99)), ms(s.at(0.999)), ms(s.at(1)), len(s.all))
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

const (
	delayTenants = 20
	delayFor     = 20 * time.Second
	warmUp       = 5 * time.Second
)

// TestBenchDelay measures how long an event takes from its producer to the
// receiver, through Kafka, at a steady rate: DATASYNC_RATE events a second, 20,000
// where it says nothing. The generator, the broker and the receiver are on the
// same machine.
func TestBenchDelay(t *testing.T) {
	rate := 20_000
	if text := os.Getenv("DATASYNC_RATE"); text != "" {
		var err error
		if rate, err = strconv.Atoi(text); err != nil || rate < 100 {
			t.Fatalf("DATASYNC_RATE=%q: a number from 100 on", text)
		}
	}
	b := newBed(t, scale{tenants: delayTenants, partitions: 16})
	b.calibrate()
	b.broker = servers.NewKafka(t)
	coordinator(t, b.broker.Addr)
	b.broker.Topic("live", b.partitions)
	to := newStopwatch(t)
	s := harness.NewService(t, "")
	s.Write("datasync.yaml", fmt.Sprintf("data_dir: %[1]s/data\nfeeds:\n  - name: bench\n    kafka: {brokers: [%[2]q], topic: live, group: delay}\n    format: canonical\ntenants: %[1]s/tenants\nadmin: {listen: %[3]q}\n",
		s.Dir, b.broker.Addr, s.Admin))
	s.Tenants(delayTenants, fmt.Sprintf("  - name: s\n    emitter: {address: %q, tls: {ca: %q}}\n", to.addr, to.ca))
	s.Up(time.Minute)
	n := int((warmUp + delayFor).Seconds()) * rate
	began, cpu := time.Now(), s.CPU()
	said := harness.Run(t, 0, "generate", "--rate", fmt.Sprint(rate), "--count", fmt.Sprint(n), "--tenants", fmt.Sprint(delayTenants),
		"--seed", fmt.Sprint(seed), "--to", "kafka://"+b.broker.Addr+"/live")
	used := float64((s.CPU() - cpu).Microseconds()) / float64(n)
	l := s.Delivered(int64(n), time.Minute)
	if !l.Balanced {
		t.Errorf("the ledger does not balance: %+v", l)
	}
	t.Logf("%s in %.1f s, %.1f µs of processor time an event", said, time.Since(began).Seconds(), used)
	t.Logf("record made by the producer → line at the receiver, at %d events/s: %v", rate, &to.took)
	if len(to.took.all) == 0 {
		t.Error("nothing was measured")
	}
	s.End(false)
}

// stopwatch is a receiver in this process that notes how old lines are.
type stopwatch struct {
	addr, ca string
	began    time.Time
	took     spread
}

func newStopwatch(t *testing.T) *stopwatch {
	t.Helper()
	certs := servers.NewCerts(t)
	pair, err := tls.LoadX509KeyPair(certs.Cert, certs.Key)
	if err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{pair}})
	if err != nil {
		t.Fatal(err)
	}
	w := &stopwatch{addr: l.Addr().String(), ca: certs.CA, began: time.Now()}
	var conns sync.WaitGroup
	conns.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return // closed at the end
			}
			conns.Go(func() { w.read(c) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close() // ends Accept; the service has ended, and its connections with it
		conns.Wait()
	})
	return w
}

// read notes the age of what comes once it has warmed up.
func (w *stopwatch) read(c net.Conn) {
	defer c.Close() // the sender's end, answered
	sc := bufio.NewScanner(c)
	sc.Buffer(make([]byte, 64<<10), 1<<20)
	for sc.Scan() {
		_, rest, _ := bytes.Cut(sc.Bytes(), []byte(`"ingest_time":`)) // the record's timestamp
		made, err := strconv.ParseInt(string(rest[:max(bytes.IndexByte(rest, ','), 0)]), 10, 64)
		if now := time.Now(); err == nil && now.Sub(w.began) > warmUp {
			w.took.add(now.Sub(time.UnixMilli(made)))
		}
	}
}
