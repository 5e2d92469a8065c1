package exporter

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"datasync/exporter/lane"
	"datasync/exporter/state"
)

func TestTheWebhookIsToldOfWhatAPersonMustKnow(t *testing.T) {
	got := make(chan Notice, 10)
	first := true
	hook := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if first {
			first = false
			http.Error(w, "busy", http.StatusServiceUnavailable)
			return
		}
		var n Notice
		if err := json.NewDecoder(r.Body).Decode(&n); err != nil {
			t.Error(err)
		}
		got <- n
	}))
	defer hook.Close()
	n := newNotifier(hook.URL, egress{}, func(err error) {
		if err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); n.run(ctx) }()
	key := state.Key{Tenant: "acme", Sink: "siem"}
	for _, s := range []lane.Status{
		{State: lane.Waiting}, {State: lane.Running}, // nobody's business
		{State: lane.Parked, Class: lane.TLSVerify, Message: "why", Since: 1000},
		{State: lane.Running, Since: 2000},
		{State: lane.Running, Since: 3000}, // told once
	} {
		n.moved(move{key: key, status: s})
	}
	for _, want := range []Notice{
		{"acme", "siem", "parked", "tls-verify", "why", time.UnixMilli(1000).UTC()},
		{"acme", "siem", "running", "", "", time.UnixMilli(2000).UTC()},
	} {
		select {
		case n := <-got:
			if n != want {
				t.Errorf("got %+v, want %+v", n, want)
			}
		case <-time.After(time.Minute):
			t.Fatal("not told")
		}
	}
	cancel()
	<-done
	if len(got) != 0 {
		t.Errorf("told of %+v too", <-got)
	}
}
