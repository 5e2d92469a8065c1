package exporter

import (
	"testing"
	"time"

	"datasync/feeds/journal"
)

// A scrub is due a day after the last one, whenever the service was started.
func TestStartsDoNotPutOffTheScrub(t *testing.T) {
	store, err := journal.OpenStore(t.TempDir(), journal.Options{MaxBytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	log, err := store.Shard(controlShard)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	if got := scrubIn(log, now); got != scrubAfter {
		t.Errorf("the first is due in %v", got)
	}
	for ago, want := range map[time.Duration]time.Duration{time.Hour: 23 * time.Hour, 24 * time.Hour: scrubAfter, 900 * time.Hour: scrubAfter, -time.Hour: scrubEvery} {
		log.PutLater(journal.Fact{Key: scrubKey, Value: journal.AppendCounts(nil, uint64(now.Add(-ago).UnixMilli()))})
		if got := scrubIn(log, now); got.Round(time.Second) != want {
			t.Errorf("%v after the last one it is due in %v, want %v", ago, got, want)
		}
	}
}
