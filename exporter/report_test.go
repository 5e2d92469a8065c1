package exporter

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"datasync/exporter/lane"
	"datasync/exporter/state"
)

// TestAnOutageIsToldOnce: however its shards go in and out of it, and whatever
// the retries of a parked sink meet, a person hears of each trouble of an
// outage once, and of its end when the last shard is out of it.
func TestAnOutageIsToldOnce(t *testing.T) {
	at := func(shard string, s lane.State, c lane.Class) move {
		return move{state.Key{Tenant: "acme", Sink: "lake"}, shard, lane.Status{State: s, Class: c}}
	}
	for name, c := range map[string]struct {
		moves []move
		told  string // to the webhook
	}{
		"one shard": {[]move{at("a", lane.Parked, lane.Forbidden), at("a", lane.Running, "")}, "parked forbidden, running "},
		"three shards": {[]move{at("a", lane.Parked, lane.Forbidden), at("b", lane.Parked, lane.Forbidden), at("a", lane.Running, ""),
			at("c", lane.Parked, lane.Forbidden), at("b", lane.Running, ""), at("c", lane.Running, "")}, "parked forbidden, running "},
		"a retry that meets something else": {[]move{at("a", lane.Parked, lane.Auth), at("a", lane.Waiting, lane.Connect), at("a", lane.Parked, lane.Auth),
			at("a", lane.Waiting, lane.Timeout), at("a", lane.Parked, lane.Auth), at("a", lane.Running, "")}, "parked auth, running "},
		"another reason": {[]move{at("a", lane.Parked, lane.Auth), at("a", lane.Waiting, lane.Reset), at("a", lane.Parked, lane.Forbidden), at("a", lane.Running, "")},
			"parked auth, parked forbidden, running "},
		"paused meanwhile": {[]move{at("a", lane.Parked, lane.Auth), at("a", lane.Paused, ""), at("a", lane.Running, "")}, "parked auth, running "},
		"twice": {[]move{at("a", lane.Parked, lane.Auth), at("a", lane.Running, ""), at("a", lane.Parked, lane.Auth), at("a", lane.Running, "")},
			"parked auth, running , parked auth, running "},
		"short": {[]move{at("a", lane.Waiting, lane.Reset), at("a", lane.Running, "")}, ""},
	} {
		var log bytes.Buffer
		r := newReporter(zerolog.New(&log))
		r.notify = newNotifier("http://unused", egress{}, nil)
		for _, m := range c.moves {
			r.moved(m.key, m.shard, m.status)
		}
		r.say()
		var told []string
		for len(r.notify.queue) > 0 {
			n := <-r.notify.queue
			told = append(told, fmt.Sprintf("%s %s", n.State, n.Reason))
		}
		if got := strings.Join(told, ", "); got != c.told {
			t.Errorf("%s: told %q, want %q", name, got, c.told)
		}
		parked := strings.Count(log.String(), "the sink is parked")
		if want := strings.Count(c.told, "parked"); parked != want {
			t.Errorf("%s: logged %d times, want %d:\n%s", name, parked, want, log.String())
		}
		if len(r.sinks) != 0 {
			t.Errorf("%s: %d outages are kept", name, len(r.sinks))
		}
	}
}
