// Package kafkafeed reads a topic as a member of a consumer group, goes on where the journal stands, and commits offsets only behind what is durable.
package kafkafeed

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"

	"datasync/feeds"
	"datasync/feeds/intake"
	"datasync/feeds/outage"
)

// Intake is the door of a partition's shard; *intake.Door is one. Submit returns
// when the events, the source position and the request's facts are durable
// together, and keeps nothing where it returns an error.
type Intake interface {
	Submit(ctx context.Context, r *intake.Request) (intake.Result, error)
}

// Log is what a partition asks the shard behind its Intake; *journal.Journal is one.
type Log interface {
	// Source is the last durable source position: the next offset; 0 is none.
	Source() uint64
	// Fact is the current value under a key.
	Fact(key string) ([]byte, bool)
}

// Shard is where one partition's records go.
type Shard struct {
	Intake Intake
	Log    Log
}

// Options of a Feed. Name, Brokers, Topic, Format and Open are required, the
// zero value of the others is the documented default.
type Options struct {
	Name    string   // of the feed, for messages
	Brokers []string // host:port of some of them, tried in order
	Topic   string
	Group   string // "" is datasync
	TLS     *TLS   // nil: plain TCP
	SASL    *SASL  // nil: no login
	Format  string
	// Journal is the id of the journal behind Open. Committed offsets are marked
	// by it, so that ours are told from another consumer's. "": none are.
	Journal string
	// Tenant is whose events these are; empty: each event, or a record's key, names its own.
	Tenant feeds.TenantID
	// Open gives a partition's shard. It is called from many goroutines, each
	// time a partition is assigned.
	Open func(ctx context.Context, partition int) (Shard, error)

	// OnError is told what an operator must know: the first failure of a kind,
	// and when all is well again. nil: nobody is told.
	OnError func(error)
	// OnGap is told of offsets that this feed will never read; the gap is
	// durable in the shard then. nil: nobody is told.
	OnGap func(Gap)

	// Session is how long the brokers wait for a sign of life before they give
	// our partitions to others; 0 is 10 s.
	Session time.Duration
	// Retry is the first pause after a failure, doubled up to 20 times as long; 0 is 250 ms.
	Retry time.Duration
	// CommitEvery is how often offsets are committed; 0 is 1 s.
	CommitEvery time.Duration
	// Watch is how often to look for new partitions; 0 is 5 s.
	Watch time.Duration
	// BatchBytes is about how many bytes of records are submitted at once; 0 is 1 MiB.
	BatchBytes int
}

// SASL is how to log in to the brokers.
type SASL struct {
	Mechanism      string // plain scram-sha-256 scram-sha-512
	User, Password string
}

// check completes the options and says what is wrong with them.
func (o *Options) check() error {
	switch {
	case !feeds.ValidName(o.Name):
		return fmt.Errorf("kafka feed: name %q is not [a-z0-9][a-z0-9_-]{0,62}", o.Name)
	case len(o.Brokers) == 0 || o.Topic == "":
		return fmt.Errorf("kafka feed %s: brokers and topic are required", o.Name)
	case o.Format == "" || o.Open == nil:
		return fmt.Errorf("kafka feed %s: Format and Open are required", o.Name)
	}
	o.Group = cmp.Or(o.Group, "datasync")
	o.Session = cmp.Or(o.Session, 10*time.Second)
	o.Retry = cmp.Or(o.Retry, 250*time.Millisecond)
	o.CommitEvery = cmp.Or(o.CommitEvery, time.Second)
	o.Watch = cmp.Or(o.Watch, 5*time.Second)
	o.BatchBytes = cmp.Or(o.BatchBytes, 1<<20)
	if o.OnError == nil {
		o.OnError = func(error) {}
	}
	if o.OnGap == nil {
		o.OnGap = func(Gap) {}
	}
	return nil
}

// Feed is one member of a consumer group. Run's goroutine owns it; each
// generation has a goroutine, and each of its partitions one
// (partition.go).
type Feed struct {
	o       Options
	client  *client
	trouble *outage.Teller
	// buffers are what responses are read into: as many as there are may be in
	// memory at once, however many partitions there are.
	buffers chan *buffer

	stop  context.CancelFunc // of Run
	once  sync.Once
	fatal error // why Run ends, set once
}

// atOnce is how many responses are worked on at once.
const atOnce = 4

// New makes a feed. No broker is asked for anything yet.
func New(o Options) (*Feed, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	c, err := newClient(&o)
	if err != nil {
		return nil, fmt.Errorf("kafka feed %s: %w", o.Name, err)
	}
	f := &Feed{o: o, client: c, buffers: make(chan *buffer, atOnce)}
	f.trouble = newTrouble(fmt.Sprintf("kafka feed %s: topic %s", o.Name, o.Topic), o.OnError, grace)
	for range atOnce {
		f.buffers <- &buffer{}
	}
	return f, nil
}

// leaveIn is how long a stop waits for the brokers to hear of it.
const leaveIn = 5 * time.Second

// Run reads until ctx ends, whatever the brokers do; it returns nil then, and
// an error only where the journal takes nothing any more.
func (f *Feed) Run(ctx context.Context) error {
	ctx, f.stop = context.WithCancel(ctx)
	defer f.stop()
	group, err := kafka.NewConsumerGroup(kafka.ConsumerGroupConfig{
		ID: f.o.Group, Brokers: f.o.Brokers, Topics: []string{f.o.Topic}, Dialer: f.client.dialer,
		SessionTimeout: f.o.Session, HeartbeatInterval: f.o.Session / 5, RebalanceTimeout: 3 * f.o.Session,
		JoinGroupBackoff: min(4*f.o.Retry, time.Second), StartOffset: kafka.FirstOffset,
	})
	if err != nil {
		return fmt.Errorf("kafka feed %s: %w", f.o.Name, err)
	}
	f.generations(ctx, group)
	// A broker that is away must not hold up the stop.
	cut := time.AfterFunc(leaveIn, f.client.cut)
	defer cut.Stop()
	err = group.Close()
	f.client.close()
	return errors.Join(f.fatal, err)
}

// fail ends Run with an error.
func (f *Feed) fail(err error) {
	f.once.Do(func() {
		f.fatal = fmt.Errorf("kafka feed %s: %w", f.o.Name, err)
		f.stop()
	})
}

// generations serves one generation of the group after the other.
func (f *Feed) generations(ctx context.Context, group *kafka.ConsumerGroup) {
	for {
		gen, err := group.Next(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			f.trouble.Tell(groupParty, fmt.Errorf("join the group %s: %w", f.o.Group, joining(err)))
			continue
		}
		gen.Start(func(ctx context.Context) { f.serve(ctx, gen) })
	}
}

// errStranger is a group of several makes. It falls to one of its members, by
// chance to us, to share out the partitions; kafka-go then reads what the others
// say of themselves, cannot where that is of a later version, and joins again.
var errStranger = errors.New("a consumer of another make is in this group too, and describes itself in a way that is not understood here")

// joining gives that error a name, since kafka-go gives it none.
func joining(err error) error {
	if strings.Contains(err.Error(), "unable to read metadata for member") {
		return errStranger
	}
	return err
}

// marks are the offsets that may be committed: behind each partition's last
// durable record.
type marks struct {
	mu      sync.Mutex
	offsets map[int]int64
	dirty   bool
}

func (m *marks) set(partition int, offset int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.offsets[partition] != offset {
		m.offsets[partition] = offset
		m.dirty = true
	}
}

// take gives the offsets where some changed since.
func (m *marks) take() map[int]int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.dirty {
		return nil
	}
	m.dirty = false
	return maps.Clone(m.offsets)
}

// again has the offsets committed once more.
func (m *marks) again() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.dirty = true
}

// serve reads the partitions of one generation until it ends. It must not
// return before, since that ends the generation; and the group joins the next
// one only when it has returned.
func (f *Feed) serve(generation context.Context, gen *kafka.Generation) {
	if generation.Err() != nil {
		return
	}
	ctx, cancel := context.WithCancel(generation)
	defer cancel()
	m := &marks{offsets: map[int]int64{}}
	assigned := gen.Assignments[f.o.Topic]
	parties := []string{topicParty}
	for _, a := range assigned {
		parties = append(parties, partitionParty(a.ID))
	}
	f.trouble.Only(parties)
	var wg sync.WaitGroup
	for _, a := range assigned {
		wg.Go(func() {
			if err := newPartition(f, a.ID, m).run(ctx, a.Offset); err != nil {
				f.fail(err)
				cancel()
			}
		})
	}
	wg.Go(func() {
		f.watch(ctx)
		cancel() // there are other partitions now: have them assigned
	})
	tick := time.NewTicker(f.o.CommitEvery)
	defer tick.Stop()
	for ctx.Err() == nil {
		select {
		case <-tick.C:
			f.commit(gen, m)
		case <-ctx.Done():
		}
	}
	wg.Wait()
	// promise: what was kept is committed before the partitions can be given to
	// another member, which begins at what is committed.
	f.commit(gen, m)
}

// commit tells the group how far everything is durable.
func (f *Feed) commit(gen *kafka.Generation, m *marks) {
	offsets := m.take()
	if offsets == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), dialTimeout)
	defer cancel()
	err := f.client.commit(ctx, gen, f.o.Topic, offsets, f.mark())
	if err != nil {
		m.again()
		err = fmt.Errorf("commit offsets to the group %s: %w", f.o.Group, err)
	}
	f.trouble.Tell(groupParty, err)
}

// mark is what our committed offsets are marked by.
func (f *Feed) mark() string {
	if f.o.Journal == "" {
		return ""
	}
	return "datasync journal " + f.o.Journal
}

// watch returns when the topic has another number of partitions, or ctx ends.
func (f *Feed) watch(ctx context.Context) {
	tick := time.NewTicker(f.o.Watch)
	defer tick.Stop()
	first := -1
	for {
		n, err := f.client.partitions(ctx, f.o.Topic)
		missing := errors.Is(err, kafka.UnknownTopicOrPartition)
		switch {
		case ctx.Err() != nil:
			return
		case missing:
			f.trouble.Tell(topicParty, fmt.Errorf("look for its partitions: %w", err))
		case err == nil:
			f.trouble.Tell(topicParty, nil)
		} // a broker that does not answer is told of by those who read from it
		switch known := missing || err == nil; {
		case known && first < 0:
			first = n
		case known && n != first:
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}
