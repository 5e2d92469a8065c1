package exporter

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"datasync/exporter/admin"
	"datasync/feeds/journal"
	kafkafeed "datasync/feeds/kafka"
	kinesisfeed "datasync/feeds/kinesis"
)

// Gaps of all shards are counted and named, the newest first, also by a service
// that was started again.
func TestLedgerNamesGaps(t *testing.T) {
	dir, at := t.TempDir(), time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	open := func() (*journal.Store, []*journal.Journal) {
		store, err := journal.OpenStore(dir, journal.Options{MaxBytes: 1 << 30})
		if err != nil {
			t.Fatal(err)
		}
		var logs []*journal.Journal
		for n := range 2 {
			log, err := store.Shard(fmt.Sprintf("mit-%d", n))
			if err != nil {
				t.Fatal(err)
			}
			logs = append(logs, log)
		}
		return store, logs
	}
	store, logs := open()
	for n := range admin.MaxGaps + 20 {
		from := int64(100 * n)
		value, err := json.Marshal(kafkafeed.Gap{Topic: "mit", Partition: n % 2, From: from, To: from + 10, Why: kafkafeed.Deleted, Found: at.Add(time.Duration(n) * time.Minute)})
		if err != nil {
			t.Fatal(err)
		}
		if err := logs[n%2].Put(t.Context(), journal.Fact{Key: kafkafeed.GapPrefix + fmt.Sprint(from), Value: value}); err != nil {
			t.Fatal(err)
		}
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	store, logs = open()
	defer store.Close()
	row := feedRow("mit", logs)
	last := int64(100 * (admin.MaxGaps + 19))
	want := admin.Gap{Topic: "mit", Partition: 1, From: last, To: last + 10, Why: "deleted", Found: at.Add((admin.MaxGaps + 19) * time.Minute)}
	if row.Missed != 10*(admin.MaxGaps+20) || len(row.Gaps) != admin.MaxGaps || row.Gaps[0] != want || row.Gaps[1].From != last-100 {
		t.Errorf("%d missed, %d gaps, the first %+v", row.Missed, len(row.Gaps), row.Gaps[0])
	}
	// What a Kinesis shard lost is named and not counted.
	g := kinesisfeed.Gap{Stream: "logs", Shard: "shardId-0", After: "7", From: at, Found: at.Add(24 * time.Hour)}
	value, err := json.Marshal(g)
	if err != nil {
		t.Fatal(err)
	}
	if err := logs[0].Put(t.Context(), journal.Fact{Key: kinesisfeed.GapPrefix + "shardId-0/7", Value: value}); err != nil {
		t.Fatal(err)
	}
	row = feedRow("mit", logs)
	want = admin.Gap{Topic: "logs", Shard: "shardId-0", Why: "deleted", Found: g.Found, Message: g.String()}
	if row.Missed != 10*(admin.MaxGaps+20) || row.Gaps[0] != want {
		t.Errorf("%d missed, the first gap %+v", row.Missed, row.Gaps[0])
	}
}
