package kafkafeed

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/segmentio/kafka-go"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestOptionsAreChecked(t *testing.T) {
	open := func(context.Context, int) (Shard, error) { return Shard{}, nil }
	good := Options{Name: "m", Brokers: []string{"a:1"}, Topic: "t", Format: "canonical", Open: open}
	if _, err := New(good); err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(*Options){
		"name":      func(o *Options) { o.Name = "No" },
		"brokers":   func(o *Options) { o.Brokers = nil },
		"topic":     func(o *Options) { o.Topic = "" },
		"Open":      func(o *Options) { o.Open = nil },
		"mechanism": func(o *Options) { o.SASL = &SASL{Mechanism: "gssapi"} },
	} {
		o := good
		change(&o)
		if _, err := New(o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
	for _, m := range []string{"plain", "scram-sha-256", "scram-sha-512"} {
		o := good
		o.SASL = &SASL{Mechanism: m, User: "u", Password: "p"}
		if _, err := New(o); err != nil {
			t.Errorf("%s: %v", m, err)
		}
	}
}

// A broker that is away is told of once and never ends the feed; a stop does, soon.
func TestBrokerAway(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	tried := make(chan bool, 100)
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			_ = c.Close() // this is the broker's illness
			select {
			case tried <- true:
			default:
			}
		}
	}()
	said := make(chan string, 10)
	f, err := New(Options{Name: "m", Brokers: []string{ln.Addr().String()}, Topic: "t", Format: "canonical", Retry: time.Millisecond,
		Open: func(context.Context, int) (Shard, error) { return Shard{}, nil }, OnError: func(err error) { said <- err.Error() }})
	if err != nil {
		t.Fatal(err)
	}
	f.trouble = newTrouble("kafka feed m: topic t", func(err error) { said <- err.Error() }, 0)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- f.Run(ctx) }()
	for range 10 {
		<-tried
	}
	if s := <-said; !strings.Contains(s, "kafka feed m: topic t: join the group datasync") || !strings.Contains(s, "its listener wants tls or sasl") || len(said) != 0 {
		t.Errorf("told %q and %d more", s, len(said))
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("a stop: %v", err)
	}
}

func TestTroubleIsToldOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var said []string
		tr := newTrouble("feed", func(err error) { said = append(said, err.Error()) }, grace)
		expect := func(n int, last string) {
			t.Helper()
			if len(said) != n || n > 0 && !strings.Contains(said[n-1], last) {
				t.Fatalf("said %q, want %d of them, the last with %q", said, n, last)
			}
		}
		refused := &net.OpError{Op: "dial", Err: errors.New("refused")}
		tr.Tell("partition 1", refused)
		tr.Tell("partition 2", refused)
		tr.Tell("partition 1", refused)
		expect(1, "feed: dial: refused")
		tr.Tell("partition 2", kafka.SASLAuthenticationFailed)
		expect(2, "sasl.password")
		time.Sleep(time.Minute)
		tr.Tell("partition 1", nil)
		expect(2, "")
		tr.Only([]string{"partition 1"}) // 2 was given to another member
		expect(3, "all is well again after 1m0s")
		tr.Tell("group", kafka.RebalanceInProgress)
		tr.Tell("partition 1", kafka.NotLeaderForPartition)
		time.Sleep(time.Second)
		tr.Tell("partition 1", nil)
		expect(3, "") // a leader that moves is worth no word
		tr.Tell("partition 1", kafka.NotLeaderForPartition)
		time.Sleep(grace)
		tr.Tell("partition 1", kafka.NotLeaderForPartition)
		expect(4, "moving leadership")
	})
}

func TestEveryErrorHasAHint(t *testing.T) {
	for class, err := range map[string]error{
		"auth": kafka.SASLAuthenticationFailed, "forbidden": kafka.TopicAuthorizationFailed, "not-found": kafka.UnknownTopicOrPartition,
		"moved": kafka.LeaderNotAvailable, "dns": &net.DNSError{Name: "nowhere"}, "reset": io.ErrUnexpectedEOF, "timeout": context.DeadlineExceeded,
		"stranger": joining(errors.New("unable to read metadata for member, kgo-1: %!w(<nil>)")),
		"corrupt":  fmt.Errorf("x: %w", errGarbled), "invalid": errTooOld, "journal": fmt.Errorf("%w: disk", errKeep), "connect": errors.New("else"), "kafka 87": kafka.Error(87),
	} {
		if got, hint := judge(fmt.Errorf("deep: %w", err)); got != class || len(hint) < 10 {
			t.Errorf("%v: class %q, want %q; hint %q", err, got, class, hint)
		}
	}
}

func TestTLSFiles(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "no.pem")
	for _, c := range []TLS{{CA: missing}, {Cert: missing, Key: missing}} {
		_, err := c.config("broker.example")
		if class, _ := judge(err); class != "tls-verify" || !strings.Contains(err.Error(), missing) {
			t.Errorf("%+v: %v", c, err)
		}
	}
	if c, err := (&TLS{}).config("broker.example"); err != nil || c.ServerName != "broker.example" {
		t.Errorf("%v %v", c, err)
	}
}

// The bytes of a request, held to the protocol's description by hand.
func TestRequestBytes(t *testing.T) {
	var sent bytes.Buffer
	f := &fetcher{conn: &writeOnly{w: &sent}, topic: "mit", partition: 5, id: 8}
	if err := f.ask(0x0102030405, 65536, 100*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	want := "00000058" + "0001" + "000a" + "00000009" + "0008" + hex.EncodeToString([]byte("datasync")) + // head
		"ffffffff" + "00000064" + "00010000" + "00100000" + "01" + "00000000" + "ffffffff" +
		"00000001" + "0003" + hex.EncodeToString([]byte("mit")) + "00000001" + "00000005" + "ffffffff" + "0000000102030405" + "ffffffffffffffff" + "00100000" + "00000000"
	if got := hex.EncodeToString(sent.Bytes()); got != want {
		t.Errorf("\n got %s\nwant %s", got, want)
	}
}

type writeOnly struct {
	net.Conn
	w io.Writer
}

func (w *writeOnly) Write(b []byte) (int, error) { return w.w.Write(b) }

func TestResponses(t *testing.T) {
	body, err := hex.DecodeString("00000009" + "00000000" + "0000" + "00000000" + "00000001" + "0003" + hex.EncodeToString([]byte("mit")) +
		"00000001" + "00000005" + "0000" + "00000000000003e8" + "00000000000003e7" + "0000000000000000" +
		"00000001" + "0000000000000007" + "0000000000000064" + "00000003" + "aabbcc")
	if err != nil {
		t.Fatal(err)
	}
	f := &fetcher{topic: "mit", partition: 5, id: 9}
	r, err := f.parse(body)
	if err != nil || r.high != 1000 || len(r.aborted) != 1 || r.aborted[0] != (aborted{7, 100}) || string(r.records) != "\xaa\xbb\xcc" {
		t.Fatalf("%+v %v", r, err)
	}
	for n := range body {
		if _, err := f.parse(body[:n]); !errors.Is(err, errGarbled) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
	for at, what := range map[int]string{3: "correlation", 22: "topic", 30: "partition"} {
		bad := bytes.Clone(body)
		bad[at] ^= 1
		if _, err := f.parse(bad); !errors.Is(err, errGarbled) {
			t.Errorf("another %s: %v", what, err)
		}
	}
	bad := bytes.Clone(body)
	bad[32] = 1
	if r, err := f.parse(bad); err != nil || !errors.Is(r.err, kafka.OffsetOutOfRange) {
		t.Errorf("%+v %v", r, err)
	}
}

func FuzzResponse(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x09\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01"))
	f.Fuzz(func(t *testing.T, b []byte) {
		c := fetcher{topic: "t", id: 9}
		if r, err := c.parse(b); err == nil && r.err == nil && len(r.records) > len(b) {
			t.Fatal("more records than bytes")
		}
	})
}
