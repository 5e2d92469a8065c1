package exporter

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"sync"
	"time"

	"datasync/exporter/lane"
	"datasync/exporter/state"
	"datasync/exporter/tenants"
	"datasync/feeds"
	"datasync/feeds/journal"
)

// steward owns which sinks and lanes exist: one goroutine, this file. It adds
// lanes when a shard first has an event for a tenant, and adds, changes and
// removes sinks as the tenants' files say, without touching the others.
type steward struct {
	s     *Service
	sinks map[state.Key]*lane.Sink
	known map[state.Key]state.Known
	// loaded are the shards whose lanes are served.
	loaded map[string]bool
	// streams is how many sinks share the memory for streams.
	streams int

	mu     sync.Mutex
	births []birth
	poke   chan struct{}
	change chan changed
	adopts chan adoption
	settle chan chan struct{} // closed when the births so far are done with
	ended  chan struct{}      // closed when run has returned
}

type birth struct {
	shard  *lane.Shard
	log    *journal.Journal
	tenant journal.TenantRef
}

type changed struct {
	set  *tenants.Set
	done chan error
}

// adoption is a shard that was opened while the service runs.
type adoption struct {
	name string
	done chan error
}

// openLanes makes the sinks of the configuration and the lanes of the facts.
func (s *Service) openLanes() error {
	s.runner = lane.NewRunner(lane.RunnerOptions{
		Spools: s.spools, Quarantine: quarantine{s.quarantine, s.o.Now}, JournalID: s.store.ID(),
		Retain: s.cfg.Journal.Retain, OnState: s.reporter.moved, Now: s.o.Now, Chance: s.o.Chance,
	})
	st := &steward{s: s, sinks: map[state.Key]*lane.Sink{}, known: map[state.Key]state.Known{}, loaded: map[string]bool{},
		poke: make(chan struct{}, 1), change: make(chan changed), adopts: make(chan adoption), settle: make(chan chan struct{}), ended: make(chan struct{})}
	s.steward = st
	names, err := s.store.Shards()
	if err != nil {
		return fmt.Errorf("list the journal's shards: %w", err)
	}
	for _, n := range names {
		if n == controlShard || n == quarantineShard {
			continue
		}
		if _, _, err := s.shard(n); err != nil {
			return err
		}
	}
	for i := range s.cfg.Feeds {
		if s.cfg.Feeds[i].Kafka != nil {
			continue // its shards are its partitions, opened as they are assigned
		}
		if _, _, err := s.shard(feedShard(&s.cfg.Feeds[i])); err != nil {
			return err
		}
	}
	maps.Insert(st.known, s.control.Sinks())
	if err := st.apply(context.Background(), s.set.Load()); err != nil {
		return err
	}
	for name, sh := range s.shards {
		if err := st.load(name, sh); err != nil {
			return err
		}
		st.loaded[name] = true
	}
	return nil
}

// adopt loads a shard unless it is loaded already.
func (st *steward) adopt(name string) error {
	if st.loaded[name] {
		return nil
	}
	st.s.mu.Lock()
	sh := st.s.shards[name]
	st.s.mu.Unlock()
	if err := st.load(name, sh); err != nil {
		return err
	}
	st.loaded[name] = true
	return nil
}

// apply makes the sinks what the set says. New sinks begin in every shard
// before they are known; a sink that is gone keeps its place.
func (st *steward) apply(ctx context.Context, set *tenants.Set) error {
	want := map[state.Key]*tenants.Sink{}
	st.streams = 0
	for _, t := range set.All() {
		for _, k := range t.Sinks {
			want[state.Key{Tenant: t.ID, Sink: k.Name}] = k
			if !k.Drops() {
				st.streams++
			}
		}
	}
	now := st.s.o.Now().UnixMilli()
	learn := map[state.Key]state.Known{}
	var fresh []state.Key
	var errs []error
	st.endAll(ctx, want)
	for key, settings := range want {
		kn, ok := st.known[key]
		if !ok {
			fresh = append(fresh, key)
			learn[key] = state.Known{Created: now}
		} else if kn.Gone != 0 {
			learn[key] = state.Known{Created: kn.Created}
		}
		if err := st.renew(key, settings); err != nil {
			errs = append(errs, err)
			delete(learn, key)
		}
	}
	for key, kn := range st.known {
		if want[key] == nil && kn.Gone == 0 {
			learn[key] = state.Known{Created: kn.Created, Gone: now}
			delete(st.sinks, key)
			st.s.runner.Swap(key, nil, now)
		}
	}
	if err := st.begin(ctx, fresh, want); err != nil {
		return errors.Join(append(errs, err)...)
	}
	if err := st.know(ctx, learn); err != nil {
		return errors.Join(append(errs, err)...)
	}
	return errors.Join(errs...)
}

// renew makes or changes a sink.
func (st *steward) renew(key state.Key, settings *tenants.Sink) error {
	old := st.sinks[key]
	if old != nil && old.Settings.Digest == settings.Digest {
		return nil
	}
	sink, err := st.remake(key, old, settings)
	if err != nil {
		return err
	}
	st.sinks[key] = sink
	st.s.runner.Swap(key, sink, 0)
	return nil
}

// remake makes a sink; a connection whose own settings stay the same is kept.
func (st *steward) remake(key state.Key, old *lane.Sink, settings *tenants.Sink) (*lane.Sink, error) {
	if old != nil && sameStream(old, settings) {
		kept := *old
		kept.Settings = settings
		return &kept, nil
	}
	peers, err := st.s.control.Peers(key)
	if err != nil {
		return nil, err
	}
	return st.s.makeSink(settings, peers)
}

// sameStream says whether a sink's connection can serve the new settings.
func sameStream(old *lane.Sink, settings *tenants.Sink) bool {
	return old.Stream != nil && !settings.Drops() && reflect.DeepEqual(old.Settings.Emitter, settings.Emitter) &&
		reflect.DeepEqual(old.Settings.Kinesis, settings.Kinesis)
}

// endAll ends the connections that the new settings have no use for, side by
// side: a peer that does not answer must not hold up the others' changes.
func (st *steward) endAll(ctx context.Context, want map[state.Key]*tenants.Sink) {
	var wg sync.WaitGroup
	for key, sink := range st.sinks {
		settings := want[key]
		if sink.Stream == nil || settings != nil && (sink.Settings.Digest == settings.Digest || sameStream(sink, settings)) {
			continue
		}
		wg.Add(1)
		go func() {
			defer wg.Done()
			st.end(ctx, key, sink)
		}()
	}
	wg.Wait()
}

// end ends a sink's connection: a short try to have it proven, then it is cut.
func (st *steward) end(ctx context.Context, key state.Key, sink *lane.Sink) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	err := errors.Join(sink.Stream.Sink.Flush(ctx), sink.Stream.Sink.Close())
	if err != nil {
		st.s.log.Info().Err(err).Str("tenant", string(key.Tenant)).Str("sink", key.Sink).
			Msg("the connection ended before the peer had confirmed everything; that is sent again")
	}
}

// begin records where new sinks start in the shards that hold events of their
// tenants already, and adds those lanes.
func (st *steward) begin(ctx context.Context, fresh []state.Key, want map[state.Key]*tenants.Sink) error {
	for name, sh := range st.shards() {
		log := st.s.journal(name)
		lanes := map[state.Key]state.Lane{}
		for _, key := range fresh {
			at := log.Standing(log.Tenant(key.Tenant))
			if _, ok, err := sh.Home.Lane(key); err != nil {
				return err
			} else if ok || at.End.Events == 0 {
				continue
			}
			start := at.End
			if want[key].Start == "oldest" {
				start = at.Oldest
			}
			lanes[key] = state.Lane{Pos: start, Start: start, Read: start}
		}
		if len(lanes) == 0 {
			continue
		}
		if err := sh.Home.Begin(ctx, lanes); err != nil {
			return fmt.Errorf("begin %d lanes in shard %s: %w", len(lanes), sh.Name, err)
		}
		for key, fact := range lanes {
			if err := st.add(sh, log, key, fact); err != nil {
				return err
			}
		}
	}
	return nil
}

func (st *steward) know(ctx context.Context, learn map[state.Key]state.Known) error {
	if len(learn) == 0 {
		return nil
	}
	if err := st.s.control.Know(ctx, learn); err != nil {
		return fmt.Errorf("remember %d sinks: %w", len(learn), err)
	}
	maps.Copy(st.known, learn)
	return nil
}

// shards are those that are open now.
func (st *steward) shards() map[string]*lane.Shard {
	st.s.mu.Lock()
	defer st.s.mu.Unlock()
	return maps.Clone(st.s.shards)
}

// load adds the lanes that a shard's facts tell of, and those of known sinks
// that the shard had no time to begin before a crash; then it listens to the shard.
func (st *steward) load(name string, sh *lane.Shard) error {
	log := st.s.journal(name)
	for key, fact := range sh.Home.Lanes() {
		if err := st.add(sh, log, key, fact); err != nil {
			return err
		}
	}
	log.Subscribe(func(as []journal.Arrival) {
		for _, a := range st.s.runner.Arrived(sh, as) {
			st.born(birth{sh, log, a.Tenant})
		}
	})
	var births []birth
	for _, t := range log.Tenants() {
		if log.Standing(t).End.Events > 0 {
			births = append(births, birth{sh, log, t})
		}
	}
	return st.complete(context.Background(), births)
}

// add gives a lane to the runner.
func (st *steward) add(sh *lane.Shard, log *journal.Journal, key state.Key, fact state.Lane) error {
	pending, err := sh.Home.Pending(key)
	if err != nil {
		return err
	}
	b := lane.Beginning{Key: key, Shard: sh, Tenant: log.Tenant(key.Tenant), Fact: fact, Drop: pending,
		Sink: st.sinks[key], Gone: st.known[key].Gone}
	if p, ok, err := st.s.control.Paused(key); err != nil {
		return err
	} else if ok {
		b.Paused = &p
	}
	st.s.runner.Add(b)
	return nil
}

// born takes note that a shard has its first events of a tenant. It is called
// by the journal's writer and must not wait.
func (st *steward) born(b birth) {
	st.mu.Lock()
	st.births = append(st.births, b)
	st.mu.Unlock()
	select {
	case st.poke <- struct{}{}:
	default:
	}
}

// complete begins the lanes that the tenants' sinks lack in a shard: at their
// first event, for a sink that is known was there before it. All births of a
// shard are one commit: after a start with thousands of tenants, a sync each
// would take longer than the deliveries.
func (st *steward) complete(ctx context.Context, births []birth) error {
	by := map[*lane.Shard][]birth{}
	for _, b := range births {
		by[b.shard] = append(by[b.shard], b)
	}
	var errs []error
	for sh, bs := range by {
		errs = append(errs, st.completeShard(ctx, sh, bs[0].log, bs))
	}
	return errors.Join(errs...)
}

func (st *steward) completeShard(ctx context.Context, sh *lane.Shard, log *journal.Journal, births []birth) error {
	lanes := map[state.Key]state.Lane{}
	away := st.away(log, births)
	for _, b := range births {
		id := log.TenantID(b.tenant)
		keys := away[id]
		if t := st.s.set.Load().Tenant(id); t != nil {
			for _, sink := range t.Sinks {
				if key := (state.Key{Tenant: id, Sink: sink.Name}); st.sinks[key] != nil {
					keys = append(keys, key)
				}
			}
		}
		if len(keys) == 0 {
			log.Release(b.tenant, log.Standing(b.tenant).End)
			continue
		}
		for _, key := range keys {
			if _, ok, err := sh.Home.Lane(key); err != nil {
				return err
			} else if !ok {
				lanes[key] = state.Lane{}
			}
		}
	}
	if len(lanes) == 0 {
		return nil
	}
	if err := sh.Home.Begin(ctx, lanes); err != nil {
		return fmt.Errorf("begin %d lanes in shard %s: %w", len(lanes), sh.Name, err)
	}
	for key, fact := range lanes {
		if err := st.add(sh, log, key, fact); err != nil {
			return err
		}
	}
	return nil
}

// away are the sinks of these tenants that were taken away: what comes now is
// kept for them too, should they be put back.
func (st *steward) away(log *journal.Journal, births []birth) map[feeds.TenantID][]state.Key {
	born := map[feeds.TenantID]bool{}
	for _, b := range births {
		born[log.TenantID(b.tenant)] = true
	}
	out := map[feeds.TenantID][]state.Key{}
	for key, kn := range st.known {
		if kn.Gone != 0 && born[key.Tenant] {
			out[key.Tenant] = append(out[key.Tenant], key)
		}
	}
	return out
}

// run serves births and changes until ctx ends.
func (st *steward) run(ctx context.Context) {
	defer close(st.ended)
	for {
		select {
		case <-st.poke:
			st.deliver(ctx)
		case done := <-st.settle:
			st.deliver(ctx)
			close(done)
		case a := <-st.adopts:
			a.done <- st.adopt(a.name)
		case c := <-st.change:
			c.done <- st.apply(ctx, c.set)
		case <-ctx.Done():
			return
		}
	}
}

// deliver begins the lanes of all births so far.
func (st *steward) deliver(ctx context.Context) {
	st.mu.Lock()
	births := st.births
	st.births = nil
	st.mu.Unlock()
	st.s.reporter.failing("begin lanes", st.complete(ctx, births))
}

// settled waits until all that arrived has its lanes, or ctx ends.
func (st *steward) settled(ctx context.Context) {
	done := make(chan struct{})
	select {
	case st.settle <- done:
	case <-st.ended:
		return
	case <-ctx.Done():
		return
	}
	select {
	case <-done:
	case <-ctx.Done():
	}
}

// changed is the watcher's call: the sinks first, then the set that feeds route by.
func (s *Service) changed(c tenants.Change) {
	for _, p := range c.Problems {
		s.log.Error().Str("file", p.File).Int("line", p.Line).Int("column", p.Col).Msg(p.Message)
	}
	if c.New == nil || c.New == c.Old {
		return
	}
	done := make(chan error, 1)
	select {
	case s.steward.change <- changed{c.New, done}:
	case <-s.steward.ended:
		return
	}
	if err := <-done; err != nil {
		s.log.Error().Err(err).Msg("reload: some sinks could not be made")
	}
	s.set.Store(c.New)
	s.log.Info().Int("tenants", c.New.Len()).Msg("the tenants' files were read again")
}

// flush has the peers of all emitters prove what they read.
func (st *steward) flush(ctx context.Context) {
	var wg sync.WaitGroup
	for key, sink := range st.sinks {
		if sink.Stream == nil {
			continue
		}
		wg.Add(1)
		go func() {
			defer wg.Done()
			if err := sink.Stream.Sink.Flush(ctx); err != nil {
				st.s.log.Warn().Err(err).Str("tenant", string(key.Tenant)).Str("sink", key.Sink).
					Msg("stop: the peer has not confirmed everything; that is sent again at the next start")
			}
		}()
	}
	wg.Wait()
}

// close ends all connections.
func (st *steward) close() error {
	var errs []error
	for _, sink := range st.sinks {
		if sink.Stream != nil {
			errs = append(errs, sink.Stream.Sink.Close())
		}
	}
	return errors.Join(errs...)
}
