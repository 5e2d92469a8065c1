package simulation_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"hash"
	"math/rand/v2"
	"net"
	"net/http"
	"path/filepath"
	"regexp"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"datasync/emitter"
	"datasync/emitter/emittertest"
	"datasync/exporter"
	"datasync/exporter/kinesis/kinesistest"
	"datasync/exporter/simulation/simtcp"
	"datasync/exporter/tenants"
	"datasync/feeds/journal"
	"datasync/feeds/journal/journaltest"
)

// world is everything that one seed makes: the machines, the network, the
// disk, the clock, and the model of what must come of it.
type world struct {
	t      *testing.T
	seed   uint64
	plan   plan
	certs  emittertest.CertSet
	server *tls.Config

	net       *simtcp.Network
	disk      *journaltest.CrashFS
	faulty    *journaltest.FaultFS
	s3        *store
	streams   kinesistest.Account
	records   map[string][]kinesistest.Record
	receivers []*receiver
	ahead     atomic.Int64 // of the wall clock before the monotonic one
	doubt     atomic.Int64 // counts what makes an answer other than 200 doubtful
	failing   atomic.Bool  // the disk does what it likes
	scarred   bool         // it did in this life
	known     atomic.Int64 // when the last death of a receiver with what it had read and not stored is known
	gone      *sinkPlan    // taken away for a while
	goneAt    time.Duration
	problems  []string

	life  *life
	lives int

	mu       sync.Mutex
	posts    []*post
	posting  sync.WaitGroup
	client   *http.Client
	customer *simtcp.Host
	made     int // events
	effects  hash.Hash
	jitter   *rand.Rand
	log      bytes.Buffer
	began    time.Time
}

// life is one run of the service's process.
type life struct {
	svc    *exporter.Service
	host   *simtcp.Host
	disk   *journaltest.CrashFS
	cancel context.CancelFunc
	ended  chan error
}

func newWorld(t *testing.T, seed uint64, dir string, certs emittertest.CertSet) *world {
	w := &world{t: t, seed: seed, certs: certs, net: simtcp.New(seed), disk: journaltest.NewCrashFS(seed),
		streams: kinesistest.Account{}, records: map[string][]kinesistest.Record{}, effects: sha256.New(), began: time.Now()}
	if interleaved || seed%4 == 0 {
		w.net.Grain = time.Millisecond // what comes at one instant can come in any order
	}
	w.plan = plan{rng: rand.New(rand.NewPCG(seed, 1)), dir: dir}
	w.s3 = &store{w: w, rng: rand.New(rand.NewPCG(seed, 2)), objects: map[string]object{}, writes: map[string]int{}}
	w.ahead.Store(int64(5 * 365 * 24 * time.Hour)) // bubbles begin in 2000, and events may not lie before
	w.jitter = rand.New(rand.NewPCG(seed, 3))
	var err error
	if w.server, err = certs.Server(false); err != nil {
		t.Fatal(err)
	}
	w.faulty = journaltest.NewFaultFS(w.disk)
	w.plan.draw(w)
	for _, s := range w.plan.sinks {
		fmt.Fprintf(&w.log, "%s:\n%s", s.key(), s.settings)
	}
	if err := errors.Join(w.plan.service(), w.plan.write()); err != nil {
		t.Fatal(err)
	}
	w.customer = w.net.Host("customer")
	w.client = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 4, DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := w.customer.Dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return c, nil
	}}}
	return w
}

func (w *world) now() time.Time { return time.Now().Add(time.Duration(w.ahead.Load())) }

// chance is the seed's, for back-offs.
func (w *world) chance() float64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.jitter.Float64()
}

// since is how long the run is under way, on no clock that jumps.
func (w *world) since() time.Duration { return time.Since(w.began) }

var journalID = regexp.MustCompile(`edge-0-[a-z0-9]{6}`)

// named is a name without the journal's id, which is not the seed's.
func (w *world) named(key string) string { return journalID.ReplaceAllString(key, "edge-0") }

// trace notes an effect; runs of one seed are the same as far as their traces are.
func (w *world) trace(format string, args ...any) {
	line := fmt.Sprintf("%s "+format+"\n", append([]any{w.since()}, args...)...)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.effects.Write([]byte(line))
	w.log.WriteString(line)
}

// wrong notes what must not be.
func (w *world) wrong(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.problems = append(w.problems, fmt.Sprintf(format, args...))
}

// Write is io.Writer's: the service's log goes into the trace's text, not its hash.
func (w *world) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	fmt.Fprintf(&w.log, "%s    %s", w.since(), p)
	return len(p), nil
}

func (w *world) newReceiver(key string, speaks speech) *receiver {
	r := &receiver{w: w, key: key, speaks: speaks, address: fmt.Sprintf("127.0.0.1:%d", 7001+len(w.receivers))}
	r.weak = w.plan.rng.IntN(4) == 0 && speaks == drains
	if w.plan.rng.IntN(2) == 0 && speaks != acknowledges {
		r.behind = time.Duration(1+w.plan.rng.IntN(900)) * time.Millisecond // the promise: a rotation, of a second at least
	}
	if err := r.start(); err != nil {
		w.t.Fatal(err)
	}
	w.receivers = append(w.receivers, r)
	return r
}

// up starts the service; where the disk does not let it, it tries again.
func (w *world) up() {
	for try := 0; ; try++ {
		if err := w.boot(); err == nil {
			return
		} else if w.trace("start fails: %v", err); try == 20 {
			w.mend() // nobody tries for ever
		} else if try > 40 {
			w.t.Fatalf("the service does not start: %v", err)
		}
		pause(context.Background(), time.Second)
	}
}

func (w *world) boot() error {
	cfg, err := tenants.Load(filepath.Join(w.plan.dir, "datasync.yaml"))
	if err != nil {
		return err
	}
	l := &life{host: w.net.Host("service"), disk: w.disk, ended: make(chan error, 1)}
	if l.svc, err = exporter.New(cfg, exporter.Options{
		Log: zerolog.New(w), Version: "simulation", StopIn: 10 * time.Second, Now: w.now, Chance: w.chance,
		Listen: func(_, address string) (net.Listener, error) { return l.host.Listen(address) },
		Dial: func(ctx context.Context, network, address string) (emitter.Transport, error) {
			c, err := l.host.Dial(ctx, network, address)
			if err != nil {
				return nil, err
			}
			return c, nil
		},
		Journal: journal.Options{FS: w.faulty, SegmentBytes: 128 << 10, ReserveBytes: 64 << 10},
		Watch:   tenants.WatchOptions{PollOnly: true, Poll: 10000 * time.Hour},
	}); err != nil {
		l.host.Kill()
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	l.cancel = cancel
	go func() { l.ended <- l.svc.Run(ctx) }()
	w.life = l
	w.lives++
	w.trace("up")
	return nil
}

// When the death of a receiver is known: see DESIGN.md, "Both at once".
const (
	bothAtOnce = 600 * time.Millisecond
	silence    = 80 * time.Second // a host's, with nothing on the way to it
)

// spare has no receiver forget anything until settle, and waits until what one
// has forgotten is known.
func (w *world) spare() {
	for _, r := range w.receivers {
		r.spare()
	}
	if left := time.Duration(w.known.Load()) - w.since(); left > 0 {
		pause(context.Background(), left)
	}
}

// settle has the receivers store what they read: where nobody watches them,
// their death with it is outside the promise. See DESIGN.md, "Both at once".
func (w *world) settle() {
	for _, r := range w.receivers {
		r.settle()
	}
}

// stop ends the service in good order.
func (w *world) stop() error {
	w.spare()
	w.trace("stop")
	w.life.cancel()
	err := <-w.life.ended
	w.life.host.Kill()
	w.settle()
	w.trace("stopped")
	return err
}

// crash ends this life: power takes what was not synced, a kill only the
// process. What is left of it in this test ends, cut off from disk and network.
func (w *world) crash(power bool) {
	w.spare()
	w.trace("crash, power %v", power)
	w.doubt.Add(1)
	w.settle()
	w.disk.Crash()
	if power {
		w.life.host.Vanish()
	} else {
		w.life.host.Kill()
	}
	w.life.cancel()
	<-w.life.ended
	if power {
		w.life.host.Reboot()
		w.disk = w.disk.Reboot()
	} else {
		w.disk = w.disk.Restart()
	}
	w.faulty = journaltest.NewFaultFS(w.disk)
}
