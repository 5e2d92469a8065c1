// Package exporter composes the service: it takes checked settings, builds
// feeds and lanes, runs, reloads, and stops in two stages.
package exporter

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"datasync/emitter"
	"datasync/exporter/dir"
	"datasync/exporter/kinesis"
	"datasync/exporter/lane"
	"datasync/exporter/lane/spool"
	"datasync/exporter/s3"
	"datasync/exporter/state"
	"datasync/exporter/tenants"
	"datasync/feeds/intake"
	"datasync/feeds/intake/alerts"
	"datasync/feeds/journal"
)

// The shards that are no feed's.
const (
	controlShard    = "control"
	quarantineShard = "quarantine"
)

// Options of a Service beyond its configuration file.
type Options struct {
	Log     zerolog.Logger
	Version string
	// StopIn is how long a stop may take to flush; 0 is 30 s.
	StopIn time.Duration
	// Listen opens the listeners; nil is net.Listen. The demo and tests use it
	// to learn the addresses.
	Listen func(name, address string) (net.Listener, error)
	// Dial reaches what sinks deliver to, past the egress rules; nil is the
	// kernel's TCP, under those rules.
	Dial func(ctx context.Context, network, address string) (emitter.Transport, error)
	// Now is the wall clock that events, lanes and the journal go by; nil is time.Now.
	Now func() time.Time
	// Chance gives the jitter of back-offs, in [0,1); nil: chance.
	Chance func() float64
	// Journal brings the file system and the sizes of the journal;
	// the rest of it is the configuration's and the service's own.
	Journal journal.Options
	// Watch is how the tenants' folder is followed.
	Watch tenants.WatchOptions
	// Done is called when a file feed that does not follow has read all.
	Done func(feed string)
}

// Service is the running program.
type Service struct {
	cfg   *tenants.Service
	o     Options
	log   zerolog.Logger
	start time.Time

	store      *journal.Store
	control    *state.Home
	quarantine *intake.Quarantine
	alerts     *alerts.Book
	spools     *spool.Budget
	buckets    *s3.Clients
	shared     *kinesis.Room // of all Kinesis sinks
	folders    *dir.Folders
	runner     *lane.Runner
	watcher    *tenants.Watcher
	set        atomic.Pointer[tenants.Set]
	steward    *steward
	reporter   *reporter

	mu     sync.Mutex
	shards map[string]*lane.Shard
	logs   map[string]*journal.Journal

	retrying sync.Mutex // one entry of the quarantine at a time

	listeners map[string]net.Listener
	ready     atomic.Pointer[string] // why not ready; nil: ready
}

// New opens the journal and everything that can fail at start: the data
// folder, the tenants' files, the listeners. Run starts it.
func New(cfg *tenants.Service, o Options) (*Service, error) {
	if o.StopIn == 0 {
		o.StopIn = 30 * time.Second
	}
	if o.Listen == nil {
		o.Listen = func(_, address string) (net.Listener, error) { return net.Listen("tcp", address) }
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	s := &Service{cfg: cfg, o: o, log: o.Log, start: o.Now(), shards: map[string]*lane.Shard{},
		logs: map[string]*journal.Journal{}, listeners: map[string]net.Listener{}, shared: kinesis.NewRoom(cfg.Memory / 16)}
	s.notReady("starting")
	s.reporter = newReporter(o.Log)
	if url := cfg.Notify.Webhook; url != "" {
		s.reporter.notify = newNotifier(url, newEgress(cfg.Egress), func(err error) { s.reporter.failing("tell the webhook of notify", err) })
	}
	for _, step := range []func() error{s.openStore, s.openSinks, s.openTenants, s.openAlerts, s.openLanes, s.openListeners} {
		if err := step(); err != nil {
			return nil, errors.Join(err, s.close())
		}
	}
	return s, nil
}

func (s *Service) notReady(why string) { s.ready.Store(&why) }

func (s *Service) openStore() error {
	dir := filepath.Join(s.cfg.DataDir, "journal")
	o := s.o.Journal
	o.MaxBytes, o.Retain, o.Report, o.Quota, o.Now = s.cfg.Journal.MaxBytes, s.cfg.Journal.Retain, s.reporter.incident, s.quota, s.o.Now
	store, err := journal.OpenStore(dir, o)
	if err != nil {
		return fmt.Errorf("open the journal in %s: %w", dir, err)
	}
	s.store = store
	control, err := store.Shard(controlShard)
	if err != nil {
		return fmt.Errorf("open the control shard in %s: %w", dir, err)
	}
	s.control = state.At(control)
	q, err := store.Shard(quarantineShard)
	if err != nil {
		return fmt.Errorf("open the quarantine in %s: %w", dir, err)
	}
	if s.quarantine, err = intake.OpenQuarantine(q); err != nil {
		return fmt.Errorf("open the quarantine in %s: %w", dir, err)
	}
	s.logs[controlShard], s.logs[quarantineShard] = control, q
	s.spools, err = spool.NewBudget(s.cfg.Memory, filepath.Join(s.cfg.DataDir, "spool"))
	return err
}

// shard opens a shard of a feed, or gives the open one.
func (s *Service) shard(name string) (*lane.Shard, *journal.Journal, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if sh := s.shards[name]; sh != nil {
		return sh, s.logs[name], nil
	}
	j, err := s.store.Shard(name)
	if err != nil {
		return nil, nil, fmt.Errorf("open shard %s of the journal: %w", name, err)
	}
	s.settleRetries(j)
	sh := &lane.Shard{Name: name + "-" + s.store.ID(), Journal: j, Home: state.At(j)}
	s.shards[name], s.logs[name] = sh, j
	return sh, j, nil
}

// journal is an open shard's journal.
func (s *Service) journal(name string) *journal.Journal {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.logs[name]
}

func (s *Service) openTenants() error {
	w, err := tenants.NewWatcher(s.cfg.Tenants, s.changed, s.o.Watch)
	if err != nil {
		return err
	}
	s.watcher = w
	s.set.Store(w.Set())
	return nil
}

func (s *Service) openListeners() error {
	open := func(name, address string) error {
		ln, err := s.o.Listen(name, address)
		if err != nil {
			return fmt.Errorf("listen on %s for %s: %w", address, name, err)
		}
		s.listeners[name] = ln
		return nil
	}
	for i := range s.cfg.Feeds {
		f, address := &s.cfg.Feeds[i], ""
		switch {
		case f.HTTP != nil:
			address = f.HTTP.Listen
		case f.TLS != nil:
			address = f.TLS.Listen
		default:
			continue
		}
		if err := open(f.Name, address); err != nil {
			return err
		}
	}
	if s.cfg.Admin.Listen == "" {
		return nil
	}
	return open(adminListener, s.cfg.Admin.Listen)
}

// Run runs the service until ctx ends, then stops it: feeds first, then what
// is under way, then the connections, with a deadline. Nil after a clean stop.
func (s *Service) Run(ctx context.Context) error {
	// What serves the lanes outlives the feeds.
	inner, cancel := context.WithCancel(context.Background())
	defer cancel()
	var lanes, feeding group
	lanes.run(func() error { s.runner.Run(inner); return nil })
	lanes.run(func() error { s.steward.run(inner); return nil })
	lanes.run(func() error { s.maintain(inner); return nil })
	lanes.run(func() error { s.scrub(inner); return nil })
	lanes.run(func() error { return s.watcher.Run(inner) })
	lanes.run(func() error { s.reporter.run(inner); return nil })
	if n := s.reporter.notify; n != nil {
		lanes.run(func() error { n.run(inner); return nil })
	}
	admin, err := s.startAdmin(inner, &lanes)
	if err != nil {
		cancel()
		return errors.Join(err, lanes.wait(), s.close())
	}
	feedCtx, stopFeeds := context.WithCancel(ctx)
	defer stopFeeds()
	if err := s.startFeeds(feedCtx, &feeding, stopFeeds); err != nil {
		stopFeeds()
		cancel()
		return errors.Join(err, feeding.wait(), lanes.wait(), s.close())
	}
	s.ready.Store(nil)
	s.log.Info().Str("version", s.o.Version).Str("data_dir", s.cfg.DataDir).Str("journal", s.store.ID()).
		Int("tenants", s.set.Load().Len()).Int("feeds", len(s.cfg.Feeds)).Str("admin", admin).Msg("running")
	<-feedCtx.Done()
	s.notReady("stopping")
	stop, stopped := context.WithTimeout(context.Background(), s.o.StopIn)
	defer stopped()
	err = feeding.wait()
	s.stopLanes(stop)
	cancel()
	return errors.Join(err, lanes.wait(), s.close())
}

// stopLanes delivers what is due, ends the turns under way and has the peers of
// streams prove what they read, until ctx ends. A third of the time is kept for
// that proof: without it what they read is sent again.
func (s *Service) stopLanes(ctx context.Context) {
	due, cancel := context.WithTimeout(ctx, s.o.StopIn*2/3)
	defer cancel()
	s.steward.settled(due)
	if s.runner.Drain(due) != nil {
		s.log.Warn().Msg("stop: not all that is due was delivered in time; it goes on at the next start")
	}
	end, cancelEnd := context.WithTimeout(ctx, s.o.StopIn/6)
	defer cancelEnd()
	if s.runner.Stop(end) != nil {
		s.log.Warn().Msg("stop: deliveries were cut short; what they held is sent again at the next start")
	}
	s.steward.flush(ctx)
	s.sayWhatIsLeft()
}

// close closes what New opened.
func (s *Service) close() error {
	var errs []error
	for _, ln := range s.listeners {
		if err := ln.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	if s.steward != nil {
		errs = append(errs, s.steward.close())
	}
	if s.store != nil {
		errs = append(errs, s.store.Close())
	}
	return errors.Join(errs...)
}

// Reload reads the tenants' files again (SIGHUP).
func (s *Service) Reload() {
	if ps := s.watcher.Reload(); len(ps) > 0 {
		s.log.Error().Int("problems", len(ps)).Msg("reload: some files were not taken; their last good settings hold")
	}
}

// Addr is the address that a listener got: a feed's name, or "admin".
func (s *Service) Addr(name string) string {
	if ln := s.listeners[name]; ln != nil {
		return ln.Addr().String()
	}
	return ""
}

// How often the lanes are tidied and the journal is kept within its bounds.
// Near the cap the journal does so by itself.
const (
	tidyEvery     = 2 * time.Second
	maintainEvery = 30 * time.Second
)

// quarantineShare is the part of journal.max_bytes that the quarantine may have: one in so many.
const quarantineShare = 10

// maintain keeps the lanes' states and the journal's size true.
func (s *Service) maintain(ctx context.Context) {
	tidy, maintain := time.NewTicker(tidyEvery), time.NewTicker(maintainEvery)
	defer tidy.Stop()
	defer maintain.Stop()
	for {
		select {
		case <-tidy.C:
			s.runner.Tidy()
		case <-maintain.C:
			s.reporter.failing("expire old entries of the quarantine", s.quarantine.Expire(ctx, s.o.Now(), s.cfg.Journal.MaxBytes/quarantineShare))
			s.reporter.failing("keep the journal within its bounds", s.store.Maintain())
		case <-ctx.Done():
			return
		}
	}
}

const (
	scrubEvery = 24 * time.Hour
	scrubRate  = 8 << 20 // bytes a second: a gigabyte in two minutes, unnoticed by the lanes
	// scrubAfter is how long after a start one that is due begins.
	scrubAfter = 10 * time.Second
	// scrubKey is the fact that says when the last one ended, in ms UTC.
	scrubKey = "scrub/ended"
)

// scrub reads all sealed blocks once a day, so that damage is found while what
// it hit may still be had from its source. Starts do not put it off.
func (s *Service) scrub(ctx context.Context) {
	log := s.journal(controlShard)
	t := time.NewTimer(scrubIn(log, s.o.Now()))
	defer t.Stop()
	for {
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
		err := s.store.Scrub(ctx, scrubRate)
		if ctx.Err() != nil {
			return
		}
		s.reporter.failing("read the journal through", err)
		if err == nil {
			log.PutLater(journal.Fact{Key: scrubKey, Value: journal.AppendCounts(nil, uint64(s.o.Now().UnixMilli()))})
		}
		t.Reset(scrubEvery)
	}
}

// scrubIn is how long the next scrub may wait.
func scrubIn(log *journal.Journal, now time.Time) time.Duration {
	value, _ := log.Fact(scrubKey)
	ended := journal.Counts(value)
	if len(ended) != 1 {
		return scrubAfter
	}
	left := scrubEvery - now.Sub(time.UnixMilli(int64(ended[0])))
	return min(max(left, scrubAfter), scrubEvery)
}

// group runs goroutines and waits for them.
type group struct {
	wg   sync.WaitGroup
	mu   sync.Mutex
	errs []error
}

func (g *group) run(f func() error) {
	g.wg.Add(1)
	go func() {
		defer g.wg.Done()
		if err := f(); err != nil {
			g.mu.Lock()
			g.errs = append(g.errs, err)
			g.mu.Unlock()
		}
	}()
}

func (g *group) wait() error {
	g.wg.Wait()
	return errors.Join(g.errs...)
}
