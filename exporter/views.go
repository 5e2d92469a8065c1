package exporter

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"datasync/exporter/admin"
	"datasync/exporter/emit"
	"datasync/exporter/lane"
	"datasync/exporter/s3"
	"datasync/exporter/state"
	"datasync/feeds"
	"datasync/feeds/intake"
	"datasync/feeds/journal"
	kafkafeed "datasync/feeds/kafka"
	kinesisfeed "datasync/feeds/kinesis"
)

// adminListener is the admin API's name among the listeners.
const adminListener = "admin"

// views is the admin API's backend.
type views Service

func (s *Service) startAdmin(ctx context.Context, g *group) (string, error) {
	ln := s.listeners[adminListener]
	if ln == nil {
		return "", nil
	}
	v := (*views)(s)
	a, err := admin.New(admin.Options{
		Listen: s.adminHost(ln), Token: s.cfg.Admin.Token.Reveal(), Hosts: s.cfg.Admin.Hosts,
		Backend: admin.Backend{Views: v, Control: v, Health: v, Quarantine: v},
	})
	if err != nil {
		return "", err
	}
	g.run(func() error { return a.Serve(ctx, ln) })
	return ln.Addr().String(), nil
}

// adminHost is the address as configured, with the port it really got.
func (s *Service) adminHost(ln net.Listener) string {
	host, port, err := net.SplitHostPort(s.cfg.Admin.Listen)
	if err != nil || port != "0" {
		return s.cfg.Admin.Listen
	}
	_, port, _ = net.SplitHostPort(ln.Addr().String())
	return net.JoinHostPort(host, port)
}

// Lanes is admin.Views's.
func (v *views) Lanes(shards bool) []admin.LaneView {
	all := map[state.Key]*admin.LaneView{}
	for _, t := range v.set.Load().All() {
		for _, s := range t.Sinks { // those without any event have no lane yet
			all[state.Key{Tenant: t.ID, Sink: s.Name}] = &admin.LaneView{
				Tenant: string(t.ID), Sink: s.Name, State: string(lane.Running), Since: v.start}
		}
	}
	for _, l := range v.runner.Views(nil) {
		one := v.one(&l)
		sum := all[l.Key]
		if sum == nil {
			sum = &admin.LaneView{Tenant: string(l.Key.Tenant), Sink: l.Key.Sink}
			all[l.Key] = sum
		}
		add(sum, one)
		if shards {
			sum.Shards = append(sum.Shards, one)
		}
	}
	// With 10,000 sinks, sorting the views themselves is most of a scrape.
	sorted := slices.SortedFunc(maps.Values(all), func(a, b *admin.LaneView) int {
		return cmp.Or(strings.Compare(a.Tenant, b.Tenant), strings.Compare(a.Sink, b.Sink))
	})
	out := make([]admin.LaneView, 0, len(sorted))
	for _, l := range sorted {
		slices.SortFunc(l.Shards, func(a, b admin.LaneView) int { return strings.Compare(a.Shard, b.Shard) })
		out = append(out, *l)
	}
	return out
}

// Lane is admin.Views's.
func (v *views) Lane(tenant, sink string) (admin.LaneView, bool) {
	k := state.Key{Tenant: feeds.TenantID(tenant), Sink: sink}
	sum := admin.LaneView{Tenant: tenant, Sink: sink, State: string(lane.Running), Since: v.start}
	ls := v.runner.Views(&k)
	if len(ls) == 0 && !v.configured(k) {
		return sum, false
	}
	for i := range ls {
		one := v.one(&ls[i])
		add(&sum, one)
		sum.Shards = append(sum.Shards, one)
		if ls[i].Sink != nil {
			sum.Facts = facts(ls[i].Sink)
		}
	}
	return sum, true
}

func (v *views) configured(k state.Key) bool {
	t := v.set.Load().Tenant(k.Tenant)
	if t == nil {
		return false
	}
	for _, s := range t.Sinks {
		if s.Name == k.Sink {
			return true
		}
	}
	return false
}

// facts are what an emitter knows of its peer, a bucket's sink of its store.
func facts(s *lane.Sink) map[string]string {
	if b, ok := s.Drops.(*s3.Sink); ok {
		return map[string]string{"put": b.Promise()}
	}
	if s.Stream == nil {
		return nil
	}
	e, ok := s.Stream.Sink.(*emit.Sink)
	if !ok {
		return nil
	}
	st, ok := e.Status()
	if !ok {
		return nil
	}
	m := map[string]string{"connected": fmt.Sprint(st.Connected), "address": st.Address}
	if st.Confirm != "" {
		m["confirm"] = st.Confirm
	}
	if st.Peer.Subject != "" {
		m["peer"] = st.Peer.Subject
		m["peer_certificate_until"] = st.Peer.NotAfter.UTC().Format(time.RFC3339)
		m["tls"] = st.Peer.Version + " " + st.Peer.Cipher
	}
	return m
}

// one is one shard's lane as the API shows it.
func (v *views) one(l *lane.View) admin.LaneView {
	f := &l.Fact
	o := admin.LaneView{
		Tenant: string(l.Key.Tenant), Sink: l.Key.Sink, Shard: l.Shard, State: string(l.Status.State),
		Reason: string(l.Status.Class), Message: l.Status.Message, Since: time.UnixMilli(l.Status.Since),
		Behind: admin.Behind{Events: int64(l.End.Events - f.Pos.Events), Bytes: int64(l.End.Bytes - f.Pos.Bytes)},
		Totals: admin.Totals{
			Received: int64(l.End.Events - f.Start.Events), Delivered: int64(f.Delivered), Filtered: int64(f.Filtered),
			SampledOut: int64(f.SampledOut), Refused: int64(f.Refused), Expired: int64(f.Expired),
			Damaged: int64(f.Damaged), Queued: int64(l.End.Events - f.Pos.Events), Repeats: int64(f.Repeats),
		},
	}
	v.expired(l, &o)
	if l.Status.NextRetry != 0 {
		t := time.UnixMilli(l.Status.NextRetry)
		o.NextRetry = &t
	}
	if l.Oldest != 0 && o.Behind.Events > 0 {
		t := time.UnixMilli(l.Oldest)
		o.Behind.Oldest = &t
	}
	if f.LastAt != 0 {
		o.LastDelivered = &admin.Delivered{EventTime: time.UnixMilli(f.LastEvent), At: time.UnixMilli(f.LastAt)}
	}
	return o
}

// expired counts what retention took of the events that wait: a lane that
// stands still would find out only once it gets there.
func (v *views) expired(l *lane.View, o *admin.LaneView) {
	v.mu.Lock()
	log := v.logs[strings.TrimSuffix(l.Shard, "-"+v.store.ID())]
	v.mu.Unlock()
	if log == nil {
		return
	}
	events, bytes := log.Expired(log.Tenant(l.Key.Tenant), l.Fact.Pos)
	n := min(int64(events), o.Totals.Queued)
	o.Totals.Expired += n
	o.Totals.Queued -= n
	o.Behind.Events -= n
	o.Behind.Bytes -= min(int64(bytes), o.Behind.Bytes)
}

// add adds a shard's lane to its sink.
func add(sum *admin.LaneView, o admin.LaneView) {
	if sum.State == "" || admin.Worse(o.State, sum.State) {
		sum.State, sum.Reason, sum.Message, sum.Since, sum.NextRetry = o.State, o.Reason, o.Message, o.Since, o.NextRetry
	}
	sum.Behind.Events += o.Behind.Events
	sum.Behind.Bytes += o.Behind.Bytes
	if o.Behind.Oldest != nil && (sum.Behind.Oldest == nil || o.Behind.Oldest.Before(*sum.Behind.Oldest)) {
		sum.Behind.Oldest = o.Behind.Oldest
	}
	if o.LastDelivered != nil && (sum.LastDelivered == nil || o.LastDelivered.At.After(sum.LastDelivered.At)) {
		sum.LastDelivered = o.LastDelivered
	}
	t, a := &sum.Totals, &o.Totals
	t.Received += a.Received
	t.Delivered += a.Delivered
	t.Filtered += a.Filtered
	t.SampledOut += a.SampledOut
	t.Refused += a.Refused
	t.Expired += a.Expired
	t.Damaged += a.Damaged
	t.Queued += a.Queued
	t.Repeats += a.Repeats
}

// Tenants is admin.Views's.
func (v *views) Tenants() []admin.TenantView {
	var out []admin.TenantView
	for _, t := range v.set.Load().All() {
		tv := admin.TenantView{Tenant: string(t.ID), Channel: t.Channel, File: t.File}
		for _, s := range t.Sinks {
			tv.Sinks = append(tv.Sinks, s.Name)
		}
		out = append(out, tv)
	}
	return out
}

// Tenant is admin.Views's.
func (v *views) Tenant(name string) (admin.TenantView, bool) {
	t := v.set.Load().Tenant(feeds.TenantID(name))
	if t == nil {
		return admin.TenantView{}, false
	}
	tv := admin.TenantView{Tenant: name, Channel: t.Channel, File: t.File}
	for _, s := range t.Sinks {
		tv.Sinks = append(tv.Sinks, s.Name)
	}
	raw, err := json.Marshal(t.Public())
	if err != nil {
		tv.Problem = fmt.Sprintf("its settings cannot be shown: %v", err)
	}
	tv.Settings = raw
	return tv, true
}

// Ledger is admin.Views's.
func (v *views) Ledger(tenant string) (admin.Ledger, error) {
	lanes := v.Lanes(false)
	rows := make([]admin.SinkRow, 0, len(lanes))
	for i := range lanes {
		l := &lanes[i]
		if tenant == "" || l.Tenant == tenant {
			rows = append(rows, admin.SinkRow{Tenant: l.Tenant, Sink: l.Sink, Totals: l.Totals})
		}
	}
	var fs []admin.FeedRow
	for i := range v.cfg.Feeds {
		f := &v.cfg.Feeds[i]
		fs = append(fs, feedRow(f.Name, (*Service)(v).feedLogs(f)))
	}
	return admin.NewLedger(rows, fs), nil
}

func feedRow(feed string, logs []*journal.Journal) admin.FeedRow {
	row := admin.FeedRow{Feed: feed}
	for _, log := range logs {
		raw, ok := log.Fact(intake.CountsKey(feed))
		if !ok {
			continue
		}
		c, t := intake.ParseCounts(raw), &row.FeedTotals
		t.Read += int64(c.Read)
		t.Made += int64(c.Made)
		t.Accepted += int64(c.Accepted)
		t.Quarantined += int64(c.Quarantined)
		t.Unrouted += int64(c.Unrouted)
		t.Duplicate += int64(c.Duplicate)
		t.Suppressed += int64(c.Suppressed)
		t.Retried += int64(c.Retried)
	}
	row.Gaps, row.Missed = gaps(logs)
	return row
}

// gaps are what a feed's shards say was never read, the newest first, and how
// many records that is.
func gaps(logs []*journal.Journal) (out []admin.Gap, missed int64) {
	for _, log := range logs {
		for _, raw := range log.Facts(kafkafeed.GapPrefix) {
			g, err := kafkafeed.ParseGap(raw)
			if err != nil {
				continue // of a version to come
			}
			missed += g.To - g.From
			out = append(out, admin.Gap{Topic: g.Topic, Partition: g.Partition, From: g.From, To: g.To, Why: g.Why, Found: g.Found})
		}
		for _, raw := range log.Facts(kinesisfeed.GapPrefix) {
			if g, err := kinesisfeed.ParseGap(raw); err == nil { // how many records that is, nobody knows
				out = append(out, admin.Gap{Topic: g.Stream, Shard: g.Shard, Why: kafkafeed.Deleted, Found: g.Found, Message: g.String()})
			}
		}
	}
	slices.SortStableFunc(out, func(a, b admin.Gap) int { return b.Found.Compare(a.Found) })
	return out[:min(len(out), admin.MaxGaps)], missed
}

// Act is admin.Control's.
func (v *views) Act(ctx context.Context, tenant, sink string, a admin.Action) error {
	k := state.Key{Tenant: feeds.TenantID(tenant), Sink: sink}
	if !v.configured(k) {
		return admin.ErrNotFound
	}
	var err error
	switch a {
	case admin.Pause:
		err = v.control.SetPause(ctx, k, &state.Pause{Since: v.o.Now().UnixMilli()})
	case admin.Resume:
		err = v.control.SetPause(ctx, k, nil)
	}
	if err != nil {
		return err
	}
	v.runner.Do(k, lane.Order(a))
	return nil
}

// Ready is admin.Health's.
func (v *views) Ready() error {
	if why := v.ready.Load(); why != nil {
		return fmt.Errorf("%s", *why)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	for name, log := range v.logs {
		if err := log.Err(); err != nil {
			return fmt.Errorf("the journal's shard %s has stopped", name)
		}
	}
	return nil
}

// Entries is admin.Quarantine's.
func (v *views) Entries(tenant, feed string, limit int) ([]admin.QuarantineView, error) {
	var out []admin.QuarantineView
	for e, err := range v.quarantine.List(intake.Filter{Tenant: feeds.TenantID(tenant), Feed: feed}) {
		if err != nil {
			return nil, err
		}
		one := entryView(&e)
		one.Record = string(e.Data[:min(len(e.Data), 512)])
		out = append(out, one)
		if len(out) >= 2*limit+1024 { // keep the newest without holding all
			out = newest(out, limit)
		}
	}
	return newest(out, limit), nil
}

func entryView(e *intake.Entry) admin.QuarantineView {
	v := admin.QuarantineView{ID: e.ID, Feed: e.Feed, Tenant: string(e.Tenant), Sink: e.Sink, Format: e.Format, Position: e.Position,
		Reason: e.Reason, At: e.Time, Bytes: int64(e.Size), Redactions: e.Redactions, Of: e.Of}
	if e.Count > 1 {
		v.Events = e.Count
	}
	return v
}

// Entry is admin.Quarantine's.
func (v *views) Entry(id string) (admin.QuarantineView, bool, error) {
	e, ok, err := v.quarantine.Get(id)
	if err != nil || !ok {
		return admin.QuarantineView{}, false, err
	}
	one := entryView(&e)
	if utf8.Valid(e.Data) {
		one.Record = string(e.Data)
	} else {
		one.Base64 = base64.StdEncoding.EncodeToString(e.Data)
	}
	return one, true, nil
}

func newest(qs []admin.QuarantineView, limit int) []admin.QuarantineView {
	slices.SortFunc(qs, func(a, b admin.QuarantineView) int { return b.At.Compare(a.At) })
	return qs[:min(len(qs), limit)]
}

// Process is admin.Health's.
func (v *views) Process() admin.ProcessView {
	u, q := v.store.Usage(), v.quarantine.Sizes()
	var watched []admin.AlertsView
	for _, a := range v.alerts.Stats() {
		watched = append(watched, admin.AlertsView{Tenant: string(a.Tenant), Entities: int64(a.Entities), Left: int64(a.Left)})
	}
	return admin.ProcessView{Version: v.o.Version, Start: v.start, JournalMaxBytes: u.Cap, Alerts: watched,
		JournalBytes: map[string]int64{"all": u.Used}, Incidents: v.reporter.counts(),
		MemoryBytes: v.spools.Used(), MemoryMaxBytes: v.cfg.Memory,
		QuarantineBytes: q.Bytes, QuarantineEntries: int64(q.Entries), QuarantineExpired: int64(q.Expired)}
}

// leftNamed is how many of the sinks with something left a stop names.
const leftNamed = 20

// sayWhatIsLeft tells at a stop what waits on disk, and for whom: the sinks that
// are furthest behind by name, and all of them in sum.
func (s *Service) sayWhatIsLeft() {
	var events, bytes int64
	left := slices.DeleteFunc((*views)(s).Lanes(false), func(l admin.LaneView) bool { return l.Behind.Events == 0 })
	slices.SortFunc(left, func(a, b admin.LaneView) int { return cmp.Compare(b.Behind.Events, a.Behind.Events) })
	for i := range left {
		l := &left[i]
		events += l.Behind.Events
		bytes += l.Behind.Bytes
		if i < leftNamed {
			s.log.Info().Str("tenant", l.Tenant).Str("sink", l.Sink).Str("state", l.State).Str("reason", l.Reason).
				Int64("events", l.Behind.Events).Int64("bytes", l.Behind.Bytes).Msg("stop: left for this sink")
		}
	}
	s.log.Info().Int64("events", events).Int64("bytes", bytes).Int("sinks", len(left)).
		Str("data_dir", s.cfg.DataDir).Msg("stopped; what is left is in the journal and goes on at the next start")
}

// Views is what the admin API shows, for callers in this process.
func (s *Service) Views() admin.Views { return (*views)(s) }

// FlushAll cuts what waits in every drop sink, without waiting for a limit.
func (s *Service) FlushAll() error {
	for _, l := range (*views)(s).Lanes(false) {
		if err := (*views)(s).Act(context.Background(), l.Tenant, l.Sink, admin.Flush); err != nil && !errors.Is(err, admin.ErrNotFound) {
			return err
		}
	}
	return nil
}
