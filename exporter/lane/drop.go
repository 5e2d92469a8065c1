package lane

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"time"

	"datasync/exporter/lane/shape"
	"datasync/exporter/lane/spool"
	"datasync/exporter/state"
	"datasync/exporter/tenants"
	"datasync/failpoint"
	"datasync/feeds/journal"
	"datasync/formats"
)

// readChunk is how much input a drop reads at once. A drop ends at the first
// chunk's end at or past its limit.
const readChunk = 1 << 20

// Manifest stands beside an object: what is in it, and from where.
type Manifest struct {
	Tenant     string           `json:"tenant"`
	Sink       string           `json:"sink"`
	Shard      string           `json:"shard"`
	Number     uint64           `json:"number"`
	Key        string           `json:"key,omitempty"` // of the object; none where it would be empty
	Events     uint64           `json:"events"`
	Bytes      int64            `json:"bytes"`
	SHA256     string           `json:"sha256,omitempty"`
	FirstEvent string           `json:"first_event_time,omitempty"` // RFC 3339
	LastEvent  string           `json:"last_event_time,omitempty"`
	From       journal.Position `json:"from"` // the journal positions it covers: [from, to)
	To         journal.Position `json:"to"`
	Schema     string           `json:"schema"`
	Format     formats.Format   `json:"format"`
	Cut        string           `json:"cut"`
	Filtered   uint64           `json:"filtered,omitempty"`
	SampledOut uint64           `json:"sampled_out,omitempty"`
	Refused    uint64           `json:"refused,omitempty"`
	Expired    uint64           `json:"expired,omitempty"`
	Damaged    uint64           `json:"damaged,omitempty"`
}

// stepped is what one step of a lane came to.
type stepped struct {
	fact    state.Lane
	oldest  int64 // of the event at fact.Pos; 0: unknown or none
	due     int64 // when to look again; 0: when data comes
	more    bool  // at once
	moved   bool  // fact changed
	flushed bool  // a flush that was asked for is done
	err     error
}

// stepDrop does one drop: finishes the pending one, or cuts the next if it is due.
func (e *env) stepDrop(ctx context.Context, l *Lane, b backlog) stepped {
	r := stepped{fact: b.fact, flushed: b.flush && b.events() == 0}
	if b.events() > 0 {
		r.oldest = b.oldest
	}
	if l.drop != nil {
		return e.finish(ctx, l, nil, r)
	}
	if b.oldest == 0 && b.events() > 0 {
		if r.oldest, r.err = e.oldest(l, b.fact.Pos); r.err != nil {
			return r
		}
		b.oldest = r.oldest
	}
	if l.tried.perEvent == 0 {
		l.tried = e.estimates.of(&l.sink.Settings.Output)
	}
	b.tried = l.tried
	d := decide(&l.sink.Settings.Deliver, &b, e.now())
	if !d.cut {
		r.due = d.due
		return r
	}
	sp := e.spools.New()
	defer sp.Close()
	p, ok, err := e.encodeNext(ctx, l, &b, d, sp)
	if err != nil || !ok {
		r.err, r.due = err, d.due
		return r
	}
	if p.Counts.Events == 0 && (!l.sink.Settings.Deliver.Empty || d.tick == 0) {
		r.flushed = b.flush
		return e.skip(l, p, r)
	}
	l.drop, r.err = l.shard.Home.Record(ctx, l.Key, p)
	if r.err != nil {
		return r
	}
	l.shard.Journal.Pin(l.tenant, p.From, p.To)
	r.flushed = b.flush && p.To.Events >= b.end.Events
	return e.finish(ctx, l, sp, r)
}

// skip moves over a range that gives no object.
func (e *env) skip(l *Lane, p state.Pending, r stepped) stepped {
	r.fact.Settle(p.To, p.Counts, e.now())
	r.fact.Tick = max(r.fact.Tick, p.Tick)
	l.shard.Home.Advance(l.Key, r.fact)
	r.moved, r.more, r.oldest = true, true, 0
	if p.To == p.From { // a hole that only now is read as one: look again soon
		r.more, r.due = false, e.now()+time.Second.Milliseconds()
	}
	return r
}

// oldest is when the tenant's first event at or behind pos was committed.
func (e *env) oldest(l *Lane, pos journal.Position) (int64, error) {
	c := e.pools.chunk()
	defer e.pools.putChunk(c)
	if err := l.shard.Journal.Read(l.tenant, pos, journal.ReadOptions{MaxEvents: 1}, c); err != nil {
		return 0, fmt.Errorf("read %s of shard %s: %w", l.Key, l.shard.Name, err)
	}
	if len(c.Spans) == 0 {
		return e.now(), nil // only holes are left: to be passed over when due
	}
	return min(c.Spans[0].Committed, e.now()), nil // ahead: before the clock was set back
}

// encodeNext encodes from the lane's position to the first limit. ok is false
// where no limit was reached and nothing demanded a cut.
func (e *env) encodeNext(ctx context.Context, l *Lane, b *backlog, d decision, sp *spool.Spool) (state.Pending, bool, error) {
	del := &l.sink.Settings.Deliver
	out := l.sink.Settings.Output
	raw, err := json.Marshal(out)
	if err != nil {
		return state.Pending{}, false, fmt.Errorf("record the settings of %s: %w", l.Key, err)
	}
	p := state.Pending{From: b.fact.Pos, To: b.fact.Pos, Number: b.fact.Number + 1, Cut: d.at, Tick: d.tick,
		Output: raw, Encoder: encoderVersion(&out), Manifest: del.Manifest || del.Empty}
	p.Key = dropKey(l, &out, p.Number, d.at)
	limit := func(c *state.Counts, size int64) bool {
		return del.MaxEvents > 0 && c.Events >= uint64(del.MaxEvents) || del.MaxBytes > 0 && size >= del.MaxBytes
	}
	full, err := e.encode(ctx, l, &out, encoding{pending: &p, before: d.before, maxEvents: del.MaxEvents, limit: limit}, sp)
	if err != nil {
		return p, false, err
	}
	full = full || del.MaxBytes > 0 && sp.Size() >= del.MaxBytes // with what the encoder still held
	if n := float64(p.To.Events - p.From.Events); n > 0 && (full || !d.must) {
		bytes := max(p.To.Bytes-p.From.Bytes, 1)
		l.tried = estimate{
			perByte:  max(float64(sp.Size())/float64(bytes), 1e-6),
			perEvent: max(float64(p.Counts.Events)/n, 1e-6),
			bytes:    bytes,
		}
		e.estimates.note(&out, l.tried)
	}
	return p, full || d.must, nil
}

// encoding is one pass from pending.From on.
type encoding struct {
	pending   *state.Pending
	before    int64 // ms UTC, 0: no bound
	until     journal.Position
	maxEvents int
	// limit, where not nil, says that the object is full.
	limit func(c *state.Counts, size int64) bool
}

// encode writes the object of a range to sp and sets what it came to in
// x.pending. It says whether a limit ended it.
func (e *env) encode(ctx context.Context, l *Lane, out *tenants.Output, x encoding, sp *spool.Spool) (full bool, err error) {
	e.encodings.Add(1)
	select {
	case e.cpu <- struct{}{}:
		defer func() { <-e.cpu }()
	case <-ctx.Done():
		return false, ctx.Err()
	}
	sh, err := shape.New(out, l.sink.Settings.Filter, false)
	if err != nil {
		return false, fmt.Errorf("shape %s: %w", l.Key, err)
	}
	enc, err := formats.NewEncoder(sp, formats.Options{Format: out.Format, Compression: out.Compression, Level: out.Level, Fields: out.Fields})
	if err != nil {
		return false, fmt.Errorf("encode %s: %w", l.Key, err)
	}
	defer enc.Abandon()
	c := e.pools.chunk()
	defer e.pools.putChunk(c)
	p := x.pending
	p.To, p.Counts = p.From, state.Counts{}
	for {
		opt := journal.ReadOptions{MaxBytes: readChunk, Before: x.before, Until: x.until.Seq}
		if x.maxEvents > 0 {
			opt.MaxEvents = x.maxEvents - int(p.Counts.Events)
		}
		if err := l.shard.Journal.Read(l.tenant, p.To, opt, c); err != nil {
			return false, fmt.Errorf("read %s of shard %s: %w", l.Key, l.shard.Name, err)
		}
		if x.until.Seq != 0 {
			c.Holes = within(c.Holes, x.until)
		}
		s := sh.Shape(c)
		if err := e.keep(ctx, l, refusals(l, s.Refused)); err != nil {
			return false, err
		}
		if err := enc.Write(s.Lines); err != nil {
			return false, fmt.Errorf("encode %s as %s: %w", l.Key, out.Format, err)
		}
		p.Counts.Add(s.Counts)
		p.To = c.Next
		full = x.limit != nil && x.limit(&p.Counts, enc.Size())
		if full || !c.More {
			break
		}
	}
	if err := enc.Close(); err != nil {
		return full, fmt.Errorf("encode %s as %s: %w", l.Key, out.Format, err)
	}
	return full, nil
}

// within is the part of holes that lies before end: what went missing behind a
// drop that was decided is the next one's to account for.
func within(holes []journal.Hole, end journal.Position) []journal.Hole {
	for i := range holes {
		h := &holes[i]
		if h.From.Events >= end.Events {
			return holes[:i]
		}
		if h.To.Events > end.Events {
			h.To = end
		}
	}
	return holes
}

func refusals(l *Lane, rs []shape.Refusal) []Refusal {
	var out []Refusal
	for _, r := range rs {
		out = append(out, Refusal{Key: l.Key, Shard: l.shard.Name, Seq: r.Pos.Seq, Line: r.Line, Reason: r.Reason})
	}
	return out
}

// finish stores the pending drop and completes it. sp is its object where it
// was just encoded, nil where it must be encoded again.
func (e *env) finish(ctx context.Context, l *Lane, sp *spool.Spool, r stepped) stepped {
	p := &l.drop.Pending
	var out tenants.Output
	if r.err = json.Unmarshal(p.Output, &out); r.err != nil {
		r.err = fmt.Errorf("read the recorded settings of drop %d of %s: %w", p.Number, l.Key, r.err)
		return r
	}
	same := p.Encoder == encoderVersion(&out)
	if sp == nil {
		sp = e.spools.New()
		defer sp.Close()
		again := *p // an attempt that fails must leave the decision as it is
		if _, r.err = e.encode(ctx, l, &out, encoding{pending: &again, until: p.To}, sp); r.err != nil {
			return r
		}
		same = same && p.Counts == again.Counts
		p.Counts = again.Counts
	}
	if r.err = e.store(ctx, l, &out, sp, same); r.err != nil {
		return r
	}
	from := p.From
	l.drop.Complete(&r.fact, e.now())
	l.drop = nil
	l.shard.Journal.Unpin(l.tenant, from)
	r.moved, r.more, r.oldest = true, true, 0
	return r
}

// store puts the object and then its manifest.
func (e *env) store(ctx context.Context, l *Lane, out *tenants.Output, sp *spool.Spool, same bool) error {
	p := &l.drop.Pending
	id := e.journalID + "/" + l.shard.Name + "/" + l.Key.String() + "/" + strconv.FormatUint(p.Number, 10)
	m := manifest(l, p, out)
	if p.Counts.Events > 0 {
		d := Drop{Key: p.Key, ID: id, Body: sp, Size: sp.Size(), SHA256: sp.SHA256(), Differs: !same, ContentType: contentType(out)}
		if err := l.sink.Drops.Put(ctx, &d); err != nil {
			return err
		}
		failpoint.At(failpoint.Stored)
		m.Key, m.Bytes, m.SHA256 = p.Key, d.Size, hex.EncodeToString(d.SHA256[:])
	}
	if !p.Manifest {
		return nil
	}
	raw, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return fmt.Errorf("write the manifest of %s: %w", p.Key, err)
	}
	ms := e.spools.New()
	defer ms.Close()
	if _, err := ms.Write(append(raw, '\n')); err != nil {
		return fmt.Errorf("write the manifest of %s: %w", p.Key, err)
	}
	err = l.sink.Drops.Put(ctx, &Drop{Key: manifestKey(p.Key, out), ID: id + "/manifest", Body: ms, Size: ms.Size(),
		SHA256: ms.SHA256(), Differs: !same, ContentType: "application/json"})
	failpoint.At(failpoint.Described)
	return err
}

func manifest(l *Lane, p *state.Pending, out *tenants.Output) Manifest {
	m := Manifest{Tenant: string(l.Key.Tenant), Sink: l.Key.Sink, Shard: l.shard.Name, Number: p.Number,
		Events: p.Counts.Events, From: p.From, To: p.To, Schema: out.Schema, Format: out.Format, Cut: rfc3339(p.Cut),
		Filtered: p.Counts.Filtered, SampledOut: p.Counts.SampledOut, Refused: p.Counts.Refused,
		Expired: p.Counts.Expired, Damaged: p.Counts.Damaged}
	if p.Counts.Events > 0 {
		m.FirstEvent, m.LastEvent = rfc3339(p.Counts.FirstEvent), rfc3339(p.Counts.LastEvent)
	}
	return m
}

func rfc3339(ms int64) string {
	return time.UnixMilli(ms).UTC().Format("2006-01-02T15:04:05.000Z07:00")
}

// dropKey is the key of a drop (contract.md, "Drops"):
// <prefix>/tenant=<t>/sink=<s>/dt=YYYY-MM-DD/hour=HH/<t>.<s>.<shard>.<number>.<ext>;
// dt and hour are UTC of the cut. It depends on nothing that another machine
// would not know, and two instances never meet on one: the shard's name ends
// with the journal's id.
func dropKey(l *Lane, out *tenants.Output, number uint64, cut int64) string {
	t := time.UnixMilli(cut).UTC()
	return fmt.Sprintf("%stenant=%s/sink=%s/dt=%s/hour=%s/%s.%s.%s.%012d.%s", l.sink.Prefix,
		l.Key.Tenant, l.Key.Sink, t.Format("2006-01-02"), t.Format("15"),
		l.Key.Tenant, l.Key.Sink, l.shard.Name, number, formats.Extension(out.Format, out.Compression))
}

// manifestKey is the key of the manifest beside an object.
func manifestKey(key string, out *tenants.Output) string {
	return strings.TrimSuffix(key, "."+formats.Extension(out.Format, out.Compression)) + ".manifest.json"
}

func contentType(out *tenants.Output) string {
	switch {
	case out.Format == formats.Parquet:
		return "application/vnd.apache.parquet"
	case out.Compression == formats.Gzip:
		return "application/gzip"
	case out.Compression == formats.Zstd:
		return "application/zstd"
	default:
		return "application/x-ndjson"
	}
}

// encoderVersion names the encoders whose bytes a drop was decided with.
// Snappy's depend on the processor's architecture too.
func encoderVersion(out *tenants.Output) string {
	v := strconv.Itoa(formats.Version)
	if out.Compression == formats.Snappy {
		v += " " + runtime.GOARCH
	}
	return v
}
