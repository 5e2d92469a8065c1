package exporter

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"datasync/exporter/admin"
	"datasync/exporter/lane"
	"datasync/exporter/tenants"
	"datasync/feeds"
	"datasync/feeds/adapt"
	"datasync/feeds/cloud"
	filefeed "datasync/feeds/file"
	httpfeed "datasync/feeds/http"
	"datasync/feeds/intake"
	"datasync/feeds/intake/alerts"
	"datasync/feeds/intake/redact"
	"datasync/feeds/journal"
	kafkafeed "datasync/feeds/kafka"
	kinesisfeed "datasync/feeds/kinesis"
	s3feed "datasync/feeds/s3"
	"datasync/feeds/tlslines"
)

// startFeeds builds every feed on a door of its own and runs it. A feed that
// fails stops the service.
func (s *Service) startFeeds(ctx context.Context, g *group, stop func()) error {
	for i := range s.cfg.Feeds {
		f := &s.cfg.Feeds[i]
		run, err := s.makeFeed(f)
		if err != nil {
			return err
		}
		g.run(func() error {
			err := run(ctx)
			if err != nil && !errors.Is(err, context.Canceled) {
				stop()
				return fmt.Errorf("feed %s: %w", f.Name, err)
			}
			return nil
		})
	}
	return nil
}

// makeFeed builds a feed: the one place that knows all transports.
func (s *Service) makeFeed(f *tenants.Feed) (func(context.Context) error, error) {
	if f.Kafka != nil {
		return s.makeKafka(f)
	}
	_, log, err := s.shard(feedShard(f))
	if err != nil {
		return nil, err
	}
	door, err := s.door(f, log, s.rules())
	if err != nil {
		return nil, err
	}
	said := s.saying(f)
	switch {
	case f.HTTP != nil:
		h, err := httpfeed.New(httpfeed.Options{
			Name: f.Name, Intake: door, Keys: (*keys)(s), Formats: knownFormat, Facts: log,
			Format: f.Format, Tenant: f.Tenant, MaxBody: f.HTTP.MaxBody, Cert: f.HTTP.Cert, Key: f.HTTP.Key,
			Rate: s.rate, Ready: log.Err, OnError: said, Now: s.o.Now,
		})
		if err != nil {
			return nil, err
		}
		ln := s.listeners[f.Name]
		return func(ctx context.Context) error { return h.Serve(ctx, ln) }, nil
	case f.File != nil:
		h, err := filefeed.New(filefeed.Options{
			Name: f.Name, Path: f.File.Path, Format: f.Format, Tenant: f.Tenant, Intake: door, Facts: log,
			Follow: f.File.Follow, OnError: said, Done: func() { s.fileDone(f.Name) },
		})
		if err != nil {
			return nil, err
		}
		return func(ctx context.Context) error {
			if err := h.Run(ctx); err != nil {
				return err
			}
			<-ctx.Done() // all is read: the lanes go on
			return nil
		}, nil
	case f.TLS != nil:
		h, err := tlslines.New(tlslines.Options{
			Name: f.Name, Format: f.Format, Tenant: f.Tenant, Intake: door, Known: s.tenantKnown,
			Cert: f.TLS.Cert, Key: f.TLS.Key, ClientCA: f.TLS.ClientCA, OnError: said, Now: s.o.Now,
		})
		if err != nil {
			return nil, err
		}
		ln := s.listeners[f.Name]
		return func(ctx context.Context) error { return h.Serve(ctx, ln) }, nil
	case f.Kinesis != nil:
		return s.makeKinesis(f, door, log)
	case f.S3 != nil:
		h, err := s3feed.New(s3feed.Options{Name: f.Name, Queue: f.S3.Queue, AWS: cloudOptions(f.S3.AWS),
			Format: f.Format, Tenant: f.Tenant, Intake: door, Facts: log, OnError: said, Now: s.o.Now})
		if err != nil {
			return nil, err
		}
		return h.Run, nil
	default:
		return nil, fmt.Errorf("feed %s: its kind is not in this build", f.Name)
	}
}

// makeKinesis builds a feed of a stream: all its shards lie in one of the journal's.
func (s *Service) makeKinesis(f *tenants.Feed, door *intake.Door, log *journal.Journal) (func(context.Context) error, error) {
	h, err := kinesisfeed.New(kinesisfeed.Options{
		Name: f.Name, Stream: f.Kinesis.Stream, AWS: cloudOptions(f.Kinesis.AWS), StartNow: f.Kinesis.Start == "now",
		Format: f.Format, Tenant: f.Tenant, Intake: door, Facts: log, OnError: s.saying(f), Clock: s.o.Now,
		OnGap: func(g kinesisfeed.Gap) {
			s.reporter.incident(journal.Incident{Shard: feedShard(f), What: "kinesis-gap", Message: g.String()})
		},
	})
	if err != nil {
		return nil, err
	}
	return h.Run, nil
}

func cloudOptions(a tenants.AWS) cloud.Options {
	return cloud.Options{Region: a.Region, Endpoint: a.Endpoint, RoleARN: a.RoleARN, ExternalID: a.ExternalID}
}

// door is the way into a shard for a feed.
func (s *Service) door(f *tenants.Feed, log *journal.Journal, rules func(feeds.TenantID) *redact.Rules) (*intake.Door, error) {
	door, err := intake.New(intake.Options{
		Feed: f.Name, Log: log, Quarantine: s.quarantine, Known: s.tenantKnown, Rules: rules,
		Alerts: s.alerts.Watch, Trust: f.HTTP == nil, Now: s.o.Now,
	})
	if err != nil {
		return nil, fmt.Errorf("feed %s: %w", f.Name, err)
	}
	return door, nil
}

// saying logs what a feed tells an operator.
func (s *Service) saying(f *tenants.Feed) func(error) {
	return func(err error) { s.log.Error().Str("feed", f.Name).Msg(err.Error()) }
}

// makeKafka builds a Kafka feed: each of its partitions has a shard of its own.
func (s *Service) makeKafka(f *tenants.Feed) (func(context.Context) error, error) {
	k, rules := f.Kafka, s.rules()
	o := kafkafeed.Options{
		Name: f.Name, Brokers: k.Brokers, Topic: k.Topic, Group: k.Group, Format: f.Format, Tenant: f.Tenant,
		Journal: s.store.ID(), OnError: s.saying(f),
		OnGap: func(g kafkafeed.Gap) {
			s.reporter.incident(journal.Incident{Shard: partitionShard(f, g.Partition), What: "kafka-gap", Message: g.String()})
		},
		Open: func(ctx context.Context, partition int) (kafkafeed.Shard, error) {
			log, err := s.adopt(ctx, partitionShard(f, partition))
			if err != nil {
				return kafkafeed.Shard{}, err
			}
			door, err := s.door(f, log, rules)
			return kafkafeed.Shard{Intake: door, Log: log}, err
		},
	}
	if k.TLS != nil {
		o.TLS = &kafkafeed.TLS{CA: k.TLS.CA, Cert: k.TLS.Cert, Key: k.TLS.Key, ServerName: k.TLS.ServerName, MinVersion: k.TLS.MinVersion}
	}
	if k.SASLMechanism != "" {
		o.SASL = &kafkafeed.SASL{Mechanism: k.SASLMechanism, User: k.SASLUser, Password: string(k.SASLPassword)}
	}
	h, err := kafkafeed.New(o)
	if err != nil {
		return nil, err
	}
	return h.Run, nil
}

// feedShard is the name of a feed's local shard.
func feedShard(f *tenants.Feed) string { return partitionShard(f, 0) }

// partitionShard is the name of the shard of a Kafka feed's partition.
func partitionShard(f *tenants.Feed, partition int) string {
	return f.Name + "-" + strconv.Itoa(partition)
}

// feedLogs are the open shards of a feed: one, or a Kafka feed's partitions,
// those among them that other members of its group read now.
func (s *Service) feedLogs(f *tenants.Feed) []*journal.Journal {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []*journal.Journal
	for name, log := range s.logs {
		if n, ok := strings.CutPrefix(name, f.Name+"-"); ok && strings.Trim(n, "0123456789") == "" {
			out = append(out, log)
		}
	}
	return out
}

// adopt opens a shard while the service runs, and has its lanes served before
// it takes anything.
func (s *Service) adopt(ctx context.Context, name string) (*journal.Journal, error) {
	_, log, err := s.shard(name)
	if err != nil {
		return nil, err
	}
	a := adoption{name: name, done: make(chan error, 1)}
	select {
	case s.steward.adopts <- a:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	select {
	case err = <-a.done:
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil {
		return nil, fmt.Errorf("serve the lanes of shard %s: %w", name, err)
	}
	return log, nil
}

func (s *Service) fileDone(feed string) {
	s.log.Info().Str("feed", feed).Msg("all files were read")
	if s.o.Done != nil {
		s.o.Done(feed)
	}
}

func knownFormat(f string) bool {
	_, ok := adapt.For(f)
	return ok
}

func (s *Service) tenantKnown(id feeds.TenantID) bool { return s.set.Load().Tenant(id) != nil }

// rules gives each tenant's redaction, compiled once for each of its settings.
func (s *Service) rules() func(feeds.TenantID) *redact.Rules {
	var compiled sync.Map // *tenants.Tenant to *redact.Rules
	var of atomic.Pointer[tenants.Set]
	return func(id feeds.TenantID) *redact.Rules {
		set := s.set.Load()
		if of.Swap(set) != set {
			compiled.Clear() // what was compiled for files since changed
		}
		t := set.Tenant(id)
		if t == nil {
			return nil
		}
		if r, ok := compiled.Load(t); ok {
			return r.(*redact.Rules)
		}
		r, err := redact.Compile(redact.Spec{Builtin: t.Redact.Builtin, QueryParams: t.Redact.QueryParams,
			Fields: t.Redact.Fields, Patterns: t.Redact.Patterns})
		if err != nil { // the file was checked, so this is ours to mend; mask more rather than less
			s.reporter.failing("compile the redaction of "+string(id), err)
			r = nil
		}
		compiled.Store(t, r)
		return r
	}
}

// openAlerts makes the sums of all tenants' alerts; one that is used first after
// a start, or after its settings changed, is read back from the shards of all feeds.
func (s *Service) openAlerts() error {
	s.alerts = alerts.NewBook(alerts.Options{
		Settings: func(id feeds.TenantID) *alerts.Settings {
			if t := s.set.Load().Tenant(id); t != nil {
				return t.Alerts
			}
			return nil
		},
		Logs: func() (out []alerts.Log) {
			s.mu.Lock()
			defer s.mu.Unlock()
			for name := range s.shards {
				out = append(out, s.logs[name])
			}
			return out
		},
		Now: s.o.Now,
		OnError: func(id feeds.TenantID, err error) {
			s.reporter.failing("read back the alerts' window of "+string(id), err)
		},
	})
	return nil
}

func (s *Service) rate(id feeds.TenantID) float64 {
	if t := s.set.Load().Tenant(id); t != nil {
		return t.Quota.EventsPerSecond
	}
	return 0
}

func (s *Service) quota(id feeds.TenantID) int64 {
	set := s.set.Load()
	if set == nil {
		return 0
	}
	if t := set.Tenant(id); t != nil {
		return t.Quota.JournalBytes
	}
	return 0
}

// keys is the HTTP feeds' view of the tenants.
type keys Service

// ByKey is httpfeed.Keys's.
func (k *keys) ByKey(key string) (feeds.TenantID, bool) { return (*Service)(k).set.Load().ByKey(key) }

// Known is httpfeed.Keys's.
func (k *keys) Known(id feeds.TenantID) bool { return (*Service)(k).tenantKnown(id) }

// quarantine is the lanes' view of the quarantine.
type quarantine struct {
	q   *intake.Quarantine
	now func() time.Time
}

// Refused is lane.Quarantine's.
func (q quarantine) Refused(ctx context.Context, rs []lane.Refusal) error {
	es := make([]intake.Entry, len(rs))
	for i, r := range rs {
		es[i] = intake.Entry{
			Time: q.now(), Tenant: r.Key.Tenant, Feed: r.Shard, Sink: r.Key.Sink, Format: "canonical",
			Reason: r.Reason, Size: len(r.Line), Data: r.Line,
		}
		if r.Seq != 0 {
			es[i].Position = fmt.Sprintf("sequence %d", r.Seq)
		}
	}
	return q.q.Put(ctx, es...)
}

// Retry is admin.Quarantine's.
func (v *views) Retry(ctx context.Context, id string) (admin.Retried, error) {
	s := (*Service)(v)
	s.retrying.Lock()
	defer s.retrying.Unlock()
	e, ok, err := s.quarantine.Get(id)
	switch {
	case err != nil:
		return admin.Retried{}, err
	case !ok && s.quarantine.WasRetried(id):
		return admin.Retried{}, fmt.Errorf("entry %s was retried already: %w", id, admin.ErrConflict)
	case !ok:
		return admin.Retried{}, fmt.Errorf("entry %s: %w", id, admin.ErrNotFound)
	case e.Sink != "":
		return admin.Retried{}, fmt.Errorf("entry %s is an event that sink %s/%s refused; the tenant's other sinks have it, and a retry would deliver it to them again: %w", id, e.Tenant, e.Sink, admin.ErrConflict)
	}
	door, log, err := s.doorOf(ctx, &e)
	if err != nil {
		return admin.Retried{}, err
	}
	if _, done := log.Fact(intake.RetriedFact(id).Key); done { // we died before the quarantine knew
		return admin.Retried{}, cmp.Or(s.forget(ctx, log, id, cmp.Or(e.Tenant, intake.Unrouted)), fmt.Errorf("entry %s was retried already: %w", id, admin.ErrConflict))
	}
	res, err := door.Retry(ctx, &e)
	out := admin.Retried{ID: id, Accepted: res.Accepted, More: res.More}
	for _, r := range res.Rejected {
		out.Rejected = append(out.Rejected, admin.Rejection(r))
	}
	if errors.Is(err, intake.ErrNoEvent) {
		why := "it holds nothing"
		if len(res.Rejected) > 0 {
			why = res.Rejected[0].Reason
		}
		return out, fmt.Errorf("entry %s stays: %w: %s: %w", id, intake.ErrNoEvent, why, admin.ErrConflict)
	}
	if err != nil {
		return out, err
	}
	s.log.Info().Bool("audit", true).Str("entry", id).Str("tenant", string(e.Tenant)).Str("feed", e.Feed).Str("position", e.Position).
		Int("accepted", res.Accepted).Int("rejected", len(res.Rejected)+res.More).Msg("an entry of the quarantine was retried")
	return out, s.forget(ctx, log, id, cmp.Or(e.Tenant, intake.Unrouted))
}

// doorOf is the way back into the shard that an entry came from.
func (s *Service) doorOf(ctx context.Context, e *intake.Entry) (*intake.Door, *journal.Journal, error) {
	i := slices.IndexFunc(s.cfg.Feeds, func(f tenants.Feed) bool { return f.Name == e.Feed })
	if i < 0 {
		return nil, nil, fmt.Errorf("entry %s came from feed %s, which the configuration does not have any more; put it back to retry: %w", e.ID, e.Feed, admin.ErrConflict)
	}
	f, partition := &s.cfg.Feeds[i], 0
	if f.Kafka != nil { // "partition 3 offset 88"; its numbers lie above those already given there
		if _, err := fmt.Sscanf(e.Position, "partition %d ", &partition); err != nil {
			return nil, nil, fmt.Errorf("entry %s lies at %q, which names no partition of feed %s: %w", e.ID, e.Position, e.Feed, admin.ErrConflict)
		}
	}
	log := s.journal(partitionShard(f, partition))
	if log == nil {
		var err error
		if log, err = s.adopt(ctx, partitionShard(f, partition)); err != nil {
			return nil, nil, err
		}
	}
	door, err := s.door(f, log, s.rules())
	return door, log, err
}

// forget takes a retried entry off the list, then lets go of the fact that says so.
func (s *Service) forget(ctx context.Context, log *journal.Journal, id string, tenant feeds.TenantID) error {
	if err := s.quarantine.Forget(ctx, id, tenant); err != nil {
		return err
	}
	log.PutLater(intake.RetriedFact(id))
	return nil
}

// settleRetries takes entries off the list that were retried just before the
// program died; what cannot be taken off now is by the next start, or when it
// is retried.
func (s *Service) settleRetries(log *journal.Journal) {
	for id, tenant := range intake.Retried(log.Facts) {
		s.reporter.failing("take what was retried out of the quarantine", s.forget(context.Background(), log, id, tenant))
	}
}
