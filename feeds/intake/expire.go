package intake

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"time"

	"datasync/feeds"
	"datasync/feeds/journal"
)

// Shelf is what a Quarantine needs of its journal to let go of old entries;
// *journal.Journal is one.
type Shelf interface {
	// TenantID is the tenant that a number stands for.
	TenantID(t journal.TenantRef) feeds.TenantID
	// Standing says where a tenant's lines begin and end.
	Standing(t journal.TenantRef) journal.Standing
	// Seek finds the first line committed at or after a time, ms UTC.
	Seek(t journal.TenantRef, at int64) (journal.Position, error)
	// Release lets go of what lies before a position.
	Release(t journal.TenantRef, p journal.Position)
	// Fact is the current value under a key.
	Fact(key string) ([]byte, bool)
}

// KeepFor is how long an entry waits for a person.
const KeepFor = 30 * 24 * time.Hour

const (
	// floorPrefix begins the keys of the facts that say up to where a tenant's
	// entries have expired.
	floorPrefix = "quarantine/floor/"
	// expiredKey is the fact that counts the entries that expired.
	expiredKey = "quarantine/expired"
)

// Expire lets go of the entries that came before KeepFor ago, and of the oldest
// of those tenants that have most, where all together have more than most
// bytes. What goes is counted (Sizes), durably.
func (q *Quarantine) Expire(ctx context.Context, now time.Time, most int64) error {
	q.expiring.Lock()
	defer q.expiring.Unlock()
	type shelf struct {
		ref      journal.TenantRef
		from, to journal.Position
		end      journal.Position
	}
	var all []shelf
	var sizes []int64
	for _, ref := range q.log.Tenants() {
		s := shelf{ref: ref, from: q.floorOf(ref), end: q.log.Standing(ref).End}
		cut, err := q.log.Seek(ref, now.Add(-KeepFor).UnixMilli())
		if err != nil {
			return fmt.Errorf("quarantine: looking for old entries: %w", err)
		}
		if s.to = s.from; cut.Seq > s.to.Seq {
			s.to = cut
		}
		all, sizes = append(all, s), append(sizes, int64(s.end.Bytes-s.to.Bytes))
	}
	level := levelOf(sizes, most)
	for i := range all {
		s := &all[i]
		if over := sizes[i] - level; over > 0 {
			at, err := q.behind(s.ref, s.to, uint64(over))
			if err != nil {
				return err
			}
			s.to = at
		}
		if s.to.Seq > s.from.Seq {
			if err := q.drop(ctx, s.ref, s.from, s.to); err != nil {
				return err
			}
		}
	}
	return nil
}

// levelOf is how much each may have so that all together have no more than most.
func levelOf(sizes []int64, most int64) int64 {
	sorted := slices.Sorted(slices.Values(sizes))
	for i, size := range sorted {
		n := int64(len(sorted) - i)
		if size*n >= most {
			return most / n
		}
		most -= size
	}
	return 1 << 62
}

// behind is the first position at least n bytes behind from.
func (q *Quarantine) behind(ref journal.TenantRef, from journal.Position, n uint64) (journal.Position, error) {
	var c journal.Chunk
	for at := from; ; at = c.Next {
		if err := q.log.Read(ref, at, journal.ReadOptions{MaxBytes: 256 << 10}, &c); err != nil {
			return from, fmt.Errorf("quarantine: reading: %w", err)
		}
		if c.Next.Bytes-from.Bytes >= n || !c.More {
			return c.Next, nil
		}
	}
}

// drop lets a tenant's lines go, and counts the entries among them.
func (q *Quarantine) drop(ctx context.Context, ref journal.TenantRef, from, to journal.Position) error {
	var expired uint64
	var gone []string
	err := q.scan(ref, from, to, func(line []byte) error {
		id := string(idOf(line))
		if isGone(line) {
			gone = append(gone, id)
		} else if !q.WasRetried(id) {
			expired++
		}
		return nil
	})
	if err != nil {
		return err
	}
	facts := []journal.Fact{{Key: q.floorKey(ref), Value: journal.AppendCounts(nil, uint64(to.Seq), to.Events, to.Bytes)},
		{Key: expiredKey, Add: true, Value: journal.AppendCounts(nil, expired)}}
	if _, err := q.log.Append(ctx, &journal.Batch{Facts: facts}); err != nil {
		return fmt.Errorf("quarantine: letting old entries go: %w", err)
	}
	q.log.Release(ref, to)
	q.mu.Lock()
	defer q.mu.Unlock()
	q.floors[ref] = to
	q.entries -= int(expired)
	q.expired += expired
	for _, id := range gone { // the entry lay before
		delete(q.gone, id)
	}
	return nil
}

func (q *Quarantine) floorKey(ref journal.TenantRef) string {
	return floorPrefix + string(q.log.TenantID(ref))
}

// floorOf is where a tenant's entries begin.
func (q *Quarantine) floorOf(ref journal.TenantRef) journal.Position {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.floors[ref]
}

// openFloors takes up what expired in earlier lives.
func (q *Quarantine) openFloors() {
	for _, ref := range q.log.Tenants() {
		value, _ := q.log.Fact(q.floorKey(ref))
		if v := journal.Counts(value); len(v) == 3 {
			at := journal.Position{Seq: feeds.Sequence(v[0]), Events: v[1], Bytes: v[2]}
			q.floors[ref] = at
			q.log.Release(ref, at)
		}
	}
	value, _ := q.log.Fact(expiredKey)
	if v := journal.Counts(value); len(v) == 1 {
		q.expired = v[0]
	}
}

// isGone says that a line takes an entry off the list.
func isGone(line []byte) bool {
	_, rest, _ := bytes.Cut(bytes.TrimPrefix(line, []byte(`{"id":"`)), []byte{'"'})
	return bytes.HasPrefix(rest, []byte(goneMark))
}

// Sizes say how much the quarantine holds.
type Sizes struct {
	Entries int
	Bytes   int64  // of the entries' lines
	Expired uint64 // entries, ever
}

// Sizes says how much there is now.
func (q *Quarantine) Sizes() (s Sizes) {
	for _, ref := range q.log.Tenants() {
		s.Bytes += int64(q.log.Standing(ref).End.Bytes - q.floorOf(ref).Bytes)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	s.Entries, s.Expired = q.entries, q.expired
	return s
}
