package intake

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"datasync/feeds"
	"datasync/feeds/journal"
)

// ErrNoEvent means that nothing of a retried entry became an event: the entry
// stays as it was.
var ErrNoEvent = errors.New("nothing of it is an event yet")

// retriedPrefix begins the keys of the facts of a feed's shard which say that
// an entry was retried there; the entry's id follows, and the value is its
// tenant. Such a fact goes once the quarantine itself knows.
const retriedPrefix = "quarantine/retried/"

// RetriedFact lets go of the fact that Retry left: the quarantine knows.
func RetriedFact(id string) journal.Fact { return journal.Fact{Key: retriedPrefix + id} }

// Retried are the entries whose facts stand in a shard, with their tenants.
func Retried(facts func(prefix string) iter.Seq2[string, []byte]) iter.Seq2[string, feeds.TenantID] {
	return func(yield func(string, feeds.TenantID) bool) {
		for key, tenant := range facts(retriedPrefix) {
			if !yield(strings.TrimPrefix(key, retriedPrefix), feeds.TenantID(tenant)) {
				return
			}
		}
	}
}

// Retry submits once more what an entry holds. Where at least one value of it
// is an event now, those are durable on return, with a fact which says that the
// entry was retried; the values that are none stand in entries of their own.
// Else the error is ErrNoEvent, the Result says why, and nothing was kept. The
// caller sees to it that no entry is retried twice at once, nor again behind
// its fact, and has Quarantine.Forget take it off the list.
func (d *Door) Retry(ctx context.Context, e *Entry) (Result, error) {
	if len(e.Data) == 0 {
		return Result{}, ErrNoEvent
	}
	tenant := e.Tenant
	if tenant == "" {
		tenant = Unrouted
	}
	var seen Result
	res, err := d.Submit(ctx, &Request{Format: e.Format, Tenant: e.Tenant, of: e.ID,
		Records: slices.Values([]feeds.Record{{Value: e.Data, Position: e.Position, ID: "quarantine:" + e.ID, Time: e.Time}}),
		Facts: func(*Result) []journal.Fact {
			// promise: that the entry was retried is durable with its events, so that they do not come twice.
			return []journal.Fact{{Key: retriedPrefix + e.ID, Value: []byte(tenant)}}
		},
		confirm: func(r *Result) error {
			if seen = *r; r.Accepted == 0 {
				return ErrNoEvent
			}
			return nil
		}})
	if errors.Is(err, ErrNoEvent) {
		return seen, err
	}
	return res, err
}

// Forget takes a retried entry of a tenant (Unrouted: of nobody) off the list:
// durable on return, and no harm twice.
func (q *Quarantine) Forget(ctx context.Context, id string, tenant feeds.TenantID) error {
	if q.WasRetried(id) {
		return nil
	}
	var b journal.Batch
	b.Arena = fmt.Appendf(nil, `{"id":%q%s:"retried"}`+"\n", id, goneMark)
	b.Events = []journal.Event{{Len: uint32(len(b.Arena)), Tenant: q.log.Tenant(tenant), Time: time.Now().UnixMilli()}}
	if _, err := q.log.Append(ctx, &b); err != nil {
		return fmt.Errorf("quarantine: taking entry %s off the list: %w", id, err)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.forget(id, true)
	return nil
}

// goneMark follows the id in the line that takes an entry off the list.
const goneMark = `,"gone"`

// forget notes that an entry was retried, and that it is one less where it was
// counted. The caller holds mu, or is the only one.
func (q *Quarantine) forget(id string, counted bool) {
	if _, known := q.gone[id]; !known && counted {
		q.entries--
	}
	q.gone[id] = struct{}{}
}

// WasRetried says that an entry was retried, as long as that is remembered.
func (q *Quarantine) WasRetried(id string) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	_, gone := q.gone[id]
	return gone
}

// hidden says that an entry is not listed: it was retried, or it is what a
// retry left of an entry which then was not retried after all, since the
// program died: that entry holds it still.
func (q *Quarantine) hidden(e *Entry) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if _, gone := q.gone[e.ID]; gone {
		return true
	}
	_, done := q.gone[e.Of]
	return e.Of != "" && !done
}
