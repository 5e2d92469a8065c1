package s3feed

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"

	"datasync/feeds"
	"datasync/feeds/adapt"
	"datasync/feeds/cloud"
	"datasync/feeds/intake"
	"datasync/feeds/journal"
	"datasync/formats/compress"
)

// reading is one object being read. One goroutine owns it.
type reading struct {
	f     *Feed
	o     object
	id    string
	at    place // what is durable
	split splitter
	buf   []byte
	base  int64 // offset of buf[0] in the object, decompressed
	cut   int   // up to where buf is cut into records
	step  int   // how much is read at once
}

// errGone is an object that nobody will ever read.
var errGone = errors.New("it cannot be read any more")

// object reads one that was announced, from where an earlier try came to, until
// all of it is durable. An error leaves the rest for a later try.
func (f *Feed) object(ctx context.Context, o object) error {
	r := &reading{f: f, o: o, id: o.id()}
	if f.memory.done(r.id) {
		return nil
	}
	if !f.memory.enter(r.id) {
		return errBusy
	}
	defer f.memory.leave(r.id)
	if f.memory.done(r.id) { // by whom it was busy
		return nil
	}
	r.at = f.memory.place(r.id)
	err := r.read(ctx)
	if errors.Is(err, errGone) {
		err = r.bad(ctx, err.Error())
	}
	return err
}

// bad ends an object with an entry in the quarantine in place of what is left of it.
func (r *reading) bad(ctx context.Context, reason string) error {
	rec := feeds.Record{Value: []byte(r.o.String()), Bad: reason, Position: r.o.String(), ID: r.recordID(r.at.Off)}
	return r.finish(ctx, []feeds.Record{rec})
}

func (r *reading) finish(ctx context.Context, records []feeds.Record) error {
	now := r.f.o.Now()
	if err := r.f.submit(ctx, records, doneFacts(r.id, now)); err != nil {
		return err
	}
	r.f.memory.age(r.id, now)
	r.f.counts.objects.Add(1)
	return nil
}

func (r *reading) recordID(off int64) string {
	return "s3:" + r.id + ":" + strconv.FormatInt(off, 10)
}

// read opens the object and reads it to its end.
func (r *reading) read(ctx context.Context) error {
	from := r.at.Off
	if r.at.Packed != "" {
		from = 0
	}
	raw, err := r.f.client.open(ctx, r.o, from)
	switch class, _ := cloud.Judge(err, ""); {
	case errors.Is(err, errReplaced), class == cloud.NotFound && cloud.Code(err) != "NoSuchBucket":
		return fmt.Errorf("%w: %s: %w", errGone, r.o, cloud.Brief(err))
	case err != nil:
		return fmt.Errorf("read %s: %w", r.o, err)
	}
	defer raw.Close()
	body, err := r.unpack(raw)
	if err != nil {
		return err
	}
	defer body.Close()
	r.split.limit, r.split.mode = r.f.o.MaxEvent, r.at.Mode
	switch {
	case r.at.State != nil:
		r.split.state = *r.at.State
	case r.split.mode == asArray && r.at.Off > 0:
		r.split.Depth = -1 // within the array
	}
	r.base = r.at.Off
	r.step = min(readBytes, r.f.o.BatchBytes)
	r.buf = make([]byte, 0, r.f.o.BatchBytes+r.f.o.MaxEvent+2*r.step) // what is submitted at once, and the longest record behind it
	return r.pieces(ctx, body)
}

// readBytes is how much is read at once.
const readBytes = 64 << 10

// unpack decompresses what is compressed, as its first bytes say, and leaves out
// what is durable.
func (r *reading) unpack(raw io.Reader) (io.ReadCloser, error) {
	b := bufio.NewReaderSize(raw, readBytes)
	if r.at.Off > 0 && r.at.Packed == "" {
		return io.NopCloser(b), nil
	}
	head, err := b.Peek(4)
	if err != nil && err != io.EOF {
		return nil, fmt.Errorf("read %s: %w", r.o, err)
	}
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b, 8}):
		r.at.Packed = "gzip"
	case bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		r.at.Packed = "zstd"
	default:
		if head, err = b.Peek(readBytes / 16); err != nil && err != io.EOF {
			return nil, fmt.Errorf("read %s: %w", r.o, err)
		}
		if bytes.IndexByte(head, 0) >= 0 { // Parquet, an archive …
			return nil, fmt.Errorf("%w: it is neither text nor compressed with gzip or zstd", errGone)
		}
		return io.NopCloser(b), nil
	}
	z, err := compress.NewReader(b, r.at.Packed, r.f.o.MaxObject)
	if err == nil {
		_, err = io.CopyN(io.Discard, z, r.at.Off)
	}
	if err != nil {
		return nil, r.broken(err)
	}
	return z, nil
}

// broken says of an error in reading whether another try may help.
func (r *reading) broken(err error) error {
	if errors.Is(err, compress.ErrCorrupt) || errors.Is(err, compress.ErrTooLarge) {
		return fmt.Errorf("%w behind byte %d: %w", errGone, r.base+int64(len(r.buf)), err)
	}
	return fmt.Errorf("read %s: %w", r.o, err)
}

// pieces submits the object's records in parts of about BatchBytes.
func (r *reading) pieces(ctx context.Context, body io.Reader) error {
	for {
		n, err := body.Read(r.buf[len(r.buf):min(cap(r.buf), len(r.buf)+r.step)])
		r.buf = r.buf[:len(r.buf)+n]
		r.cut = r.split.cut(r.buf, r.cut, err == io.EOF)
		if err != nil && err != io.EOF {
			err = r.broken(err)
			if errors.Is(err, errGone) { // what came before is good
				if kept := r.part(ctx); kept != nil {
					return kept
				}
			}
			return err
		}
		switch {
		case err == io.EOF:
			return r.finish(ctx, r.records())
		case len(r.split.found) == 0:
			r.drop(r.cut)
		case r.cut >= r.f.o.BatchBytes || cap(r.buf)-len(r.buf) < r.step || len(r.split.found) >= maxRecords:
			if err := r.part(ctx); err != nil {
				return err
			}
		}
	}
}

// maxRecords are submitted at once.
const maxRecords = 1 << 14

// part makes the records found durable, with how far that is.
func (r *reading) part(ctx context.Context) error {
	n := len(r.split.found)
	if n == 0 {
		return nil
	}
	last := r.split.found[n-1]
	records := r.records()
	next := place{Off: r.base + int64(last.next), Mode: last.mode, Packed: r.at.Packed, At: r.f.o.Now().UnixMilli(), Head: r.at.Head}
	if r.split.Skip { // the rest of what is too long is still to be left out
		inside := r.split.state
		next.Off, next.Mode, next.State = r.base+int64(r.cut), r.split.mode, &inside
	}
	// promise: how far an object was read lies in the commit of what was read, so
	// that no record of it is taken twice or left out.
	if err := r.f.submit(ctx, records, []journal.Fact{partFact(r.id, next)}); err != nil {
		return err
	}
	r.at = next
	r.split.found = r.split.found[:0]
	r.drop(r.cut)
	return nil
}

// drop forgets the first n bytes of buf.
func (r *reading) drop(n int) {
	r.buf = r.buf[:copy(r.buf, r.buf[n:])]
	r.base += int64(n)
	r.cut = 0
}

// maxHead bounds the lines in front that name fields; a real one has some 500 bytes.
const maxHead = 4 << 10

// records makes records of what was found: one of each, or where a format's
// lines belong together (adapt.Whole) one of all that follow each other, behind
// the lines that name their fields.
func (r *reading) records() []feeds.Record {
	whole := adapt.Whole(r.f.o.Format)
	out := make([]feeds.Record, 0, len(r.split.found))
	for i := 0; i < len(r.split.found); i++ {
		p := r.split.found[i]
		head := ""
		if whole && p.bad == "" && p.mode == asLines {
			r.head(&p)
			for ; i+1 < len(r.split.found) && r.split.found[i+1].bad == "" && r.split.found[i+1].mode == asLines; i++ {
				p.to = r.split.found[i+1].to
			}
			if head = r.at.Head; r.base+int64(p.from) <= int64(len(bom)) {
				head = "" // they are there
			}
		}
		off := r.base + int64(p.from)
		value := bytes.TrimSpace(r.buf[p.from:p.to])
		if head != "" {
			value = slices.Concat([]byte(head), value)
		}
		out = append(out, feeds.Record{Value: value, Bad: p.bad, Position: r.o.String() + ":" + strconv.FormatInt(off, 10), ID: r.recordID(off)})
	}
	return out
}

// head keeps the lines in front of an object that begin with '#'.
func (r *reading) head(first *piece) {
	if r.at.Off != 0 || r.base+int64(first.from) > int64(len(bom)) {
		return
	}
	b := r.buf[first.from:]
	n := 0
	for n < len(b) && b[n] == '#' {
		end := bytes.IndexByte(b[n:], '\n')
		if end < 0 || n+end >= maxHead {
			break
		}
		n += end + 1
	}
	r.at.Head = string(b[:n])
}

// submit makes records and facts durable, for as long as it takes.
func (f *Feed) submit(ctx context.Context, records []feeds.Record, facts []journal.Fact) error {
	req := intake.Request{Format: f.o.Format, Tenant: f.o.Tenant,
		Records: func(yield func(feeds.Record) bool) {
			for _, r := range records {
				if !yield(r) {
					return
				}
			}
		},
		Facts: func(*intake.Result) []journal.Fact { return facts },
	}
	for wait := f.o.Retry; ; wait = min(2*wait, 20*f.o.Retry) {
		// A stop does not leave us in doubt whether this was kept.
		_, err := f.o.Intake.Submit(context.WithoutCancel(ctx), &req)
		switch {
		case err == nil:
			f.trouble.Tell(journalParty, nil)
			return nil
		case errors.Is(err, feeds.ErrStopped):
			return fmt.Errorf("keep records: %w", err)
		}
		f.trouble.Tell(journalParty, fmt.Errorf("the journal does not take them: %w", err))
		pause(ctx, wait)
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}
