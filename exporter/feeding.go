package exporter

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"datasync/exporter/lane"
	"datasync/exporter/tenants"
	"datasync/feeds"
	"datasync/feeds/adapt"
	filefeed "datasync/feeds/file"
	httpfeed "datasync/feeds/http"
	"datasync/feeds/intake"
	"datasync/feeds/intake/redact"
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
	_, log, err := s.shard(feedShard(f))
	if err != nil {
		return nil, err
	}
	door, err := intake.New(intake.Options{
		Feed: f.Name, Log: log, Quarantine: s.quarantine, Known: s.tenantKnown, Rules: s.rules(), Trust: f.HTTP == nil,
	})
	if err != nil {
		return nil, fmt.Errorf("feed %s: %w", f.Name, err)
	}
	said := func(err error) { s.log.Error().Str("feed", f.Name).Msg(err.Error()) }
	switch {
	case f.HTTP != nil:
		h, err := httpfeed.New(httpfeed.Options{
			Name: f.Name, Intake: door, Keys: (*keys)(s), Formats: knownFormat, Facts: log,
			Format: f.Format, Tenant: f.Tenant, MaxBody: f.HTTP.MaxBody, Cert: f.HTTP.Cert, Key: f.HTTP.Key,
			Rate: s.rate, Ready: log.Err, OnError: said,
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
	default:
		return nil, fmt.Errorf("feed %s: its kind is not in this build", f.Name)
	}
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
type quarantine struct{ q *intake.Quarantine }

// Refused is lane.Quarantine's.
func (q quarantine) Refused(ctx context.Context, rs []lane.Refusal) error {
	es := make([]intake.Entry, len(rs))
	for i, r := range rs {
		es[i] = intake.Entry{
			Time: time.Now(), Tenant: r.Key.Tenant, Feed: r.Shard, Sink: r.Key.Sink, Format: "canonical",
			Reason: r.Reason, Size: len(r.Line), Data: r.Line,
		}
		if r.Seq != 0 {
			es[i].Position = fmt.Sprintf("sequence %d", r.Seq)
		}
	}
	return q.q.Put(ctx, es...)
}
