package kafka

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
)

// An older copy of the data folder put back stands for a disk that did not keep
// what it had synced: the group's offset is ahead of the journal, and it is
// ours. What the journal has lost is read again, and no gap is made of it.
func TestFaultALostEndOfTheJournalIsReadAgain(t *testing.T) {
	c := fake(t, kfake.SeedTopics(3, topic))
	broker := c.ListenAddrs()[0]
	p := client(t, broker)
	in := lines(t, 1, 9000, 5)
	s := service(t, feed("mitigations", broker, topic, ""))
	s.Tenants(5, drops)
	produce(t, p, topic, in[:3000])
	s.Up(30 * time.Second)
	s.Delivered(3000, time.Minute)
	s.End(false)
	old := filepath.Join(t.TempDir(), "data")
	if err := os.CopyFS(old, os.DirFS(filepath.Join(s.Dir, "data"))); err != nil {
		t.Fatal(err)
	}
	produce(t, p, topic, in[3000:6000])
	s.Up(30 * time.Second)
	s.Delivered(6000, time.Minute)
	s.End(false)
	move(t, filepath.Join(s.Dir, "data"), filepath.Join(s.Dir, "data-new"))
	move(t, old, filepath.Join(s.Dir, "data"))
	move(t, filepath.Join(s.Dir, "drops"), filepath.Join(s.Dir, "drops-new")) // their numbers come again
	produce(t, p, topic, in[6000:])
	s.Up(30 * time.Second)
	says(t, s, 30*time.Second, "they are read again")
	s.Delivered(9000, time.Minute)
	s.End(false)
	if out := s.Output(); strings.Contains(out, "were not read") {
		t.Errorf("a gap was made of it:\n%s", out)
	}
	_, ids := received(t, s)
	for i := range in {
		want := 1
		if i < 3000 {
			want = 0 // they are in the drops that were moved away
		}
		if id := fmt.Sprintf("gen-1-%d", i+1); ids[id] != want {
			t.Fatalf("%s is there %d times, want %d", id, ids[id], want)
		}
	}
	t.Log("3000 of 6000 committed offsets lost with the end of the journal: 3000 read again, lost 0, repeated 0, no gap")
}

// A topic that was deleted and made anew, and has grown past the offset wanted,
// is noticed: none of its records is taken for the one that follows.
func TestFaultATopicMadeAnewIsNoticed(t *testing.T) {
	c := fake(t, kfake.SeedTopics(1, topic))
	broker := c.ListenAddrs()[0]
	p := client(t, broker)
	adm := kadm.NewClient(p)
	in := lines(t, 1, 4000, 5)
	s := service(t, feed("mitigations", broker, topic, ""))
	s.Tenants(5, drops)
	produce(t, p, topic, in[:1000])
	s.Up(30 * time.Second)
	s.Delivered(1000, time.Minute)
	s.End(false)
	s.Up(30 * time.Second) // the same topic: nothing to say
	produce(t, p, topic, in[1000:1500])
	s.Delivered(1500, time.Minute)
	s.End(false)
	if out := s.Output(); strings.Contains(out, "made anew") {
		t.Fatalf("it is the same topic:\n%s", out)
	}
	if _, err := adm.DeleteTopics(context.Background(), topic); err != nil {
		t.Fatal(err)
	}
	if _, err := adm.CreateTopic(context.Background(), 1, 1, nil, topic); err != nil {
		t.Fatal(err)
	}
	q := client(t, broker)
	produce(t, q, topic, in[1500:])
	s.Up(30 * time.Second)
	says(t, s, 30*time.Second, "the topic was deleted and made anew")
	says(t, s, time.Second, "give the feed another name to read the topic from its beginning")
	if n := read(s); n != 1500 {
		t.Errorf("%d events were read, 1500 before", n)
	}
	s.End(false)
}

func move(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}
