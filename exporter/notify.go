package exporter

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"time"

	"datasync/exporter/lane"
)

// Notice is what the webhook of notify is posted, as JSON: a sink that was
// parked or is suspended (it has failed for a minute), and when it runs again.
type Notice struct {
	Tenant  string    `json:"tenant"`
	Sink    string    `json:"sink"`
	State   string    `json:"state"` // parked suspended running
	Reason  string    `json:"reason,omitempty"`
	Message string    `json:"message,omitempty"`
	Since   time.Time `json:"since"`
}

// notifier posts notices, in order, from one goroutine. The newest are dropped
// where the webhook does not keep up: the log has them all.
type notifier struct {
	url    string
	client *http.Client
	queue  chan Notice
	failed func(error) // nil error: it works again
	told   map[string]bool
}

const (
	noticeQueue = 256
	noticeTries = 4
)

func newNotifier(url string, e egress, failed func(error)) *notifier {
	dialer := &net.Dialer{Timeout: 5 * time.Second, Control: e.control}
	return &notifier{url: url, failed: failed, queue: make(chan Notice, noticeQueue), told: map[string]bool{},
		client: &http.Client{
			Timeout:   10 * time.Second,
			Transport: &http.Transport{DialContext: dialer.DialContext, Proxy: http.ProxyFromEnvironment},
			// A redirect could lead where egress does not want us.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		}}
}

// moved takes note of a sink's new state, from one goroutine; it never waits.
func (n *notifier) moved(m move) {
	key := m.key.String()
	switch m.status.State {
	case lane.Parked, lane.Suspended:
		n.told[key] = true
	case lane.Running:
		if !n.told[key] {
			return
		}
		delete(n.told, key)
	default:
		return
	}
	select {
	case n.queue <- Notice{string(m.key.Tenant), m.key.Sink, string(m.status.State), string(m.status.Class),
		m.status.Message, time.UnixMilli(m.status.Since).UTC()}:
	default:
	}
}

// run posts until ctx ends.
func (n *notifier) run(ctx context.Context) {
	for {
		select {
		case notice := <-n.queue:
			n.failed(n.tell(ctx, notice))
		case <-ctx.Done():
			return
		}
	}
}

// tell posts one notice, a few times where that fails.
func (n *notifier) tell(ctx context.Context, notice Notice) error {
	body, err := json.Marshal(notice)
	if err != nil {
		return err
	}
	for try := range noticeTries {
		if err = n.post(ctx, body); err == nil {
			return nil
		}
		select {
		case <-time.After(time.Second << try):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return err
}

func (n *notifier) post(ctx context.Context, body []byte) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, n.url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := n.client.Do(req)
	if err != nil {
		return err
	}
	if err := resp.Body.Close(); err != nil {
		return err
	}
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("the webhook answered %s", resp.Status)
	}
	return nil
}
