package kills

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"datasync/integration/harness"
)

// frozen is a rig whose receiver and stream take nothing, with events for them.
func frozen(t *testing.T) *rig {
	t.Helper()
	r := newRig(t, uint64(time.Now().UnixNano()))
	r.up()
	for range 40 {
		if err := r.ledger.post(); err != nil {
			t.Fatal(err)
		}
	}
	r.Delivered(int64(len(r.ledger.acked)), time.Minute) // the connections are up
	r.receiver.Signal(syscall.SIGSTOP)
	r.streams.Signal(syscall.SIGSTOP)
	for range 40 {
		if err := r.ledger.post(); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

// thawed starts the next life and holds what arrives to the ledger.
func (r *rig) thawed() (emitted, streamed int) {
	r.t.Helper()
	r.receiver.Signal(syscall.SIGCONT)
	r.streams.Signal(syscall.SIGCONT)
	r.up()
	return r.settle()
}

// TestFaultSecondSIGTERM: a stop that waits for peers which do not answer ends
// at once at the second SIGTERM, and nothing is lost.
func TestFaultSecondSIGTERM(t *testing.T) {
	r := frozen(t)
	r.Signal(syscall.SIGTERM)
	harness.Pause(time.Second)
	if !r.Running() {
		t.Fatalf("the stop did not wait for its peers:\n%s", r.Output())
	}
	began := time.Now()
	r.Signal(syscall.SIGTERM)
	code := r.Wait(10 * time.Second)
	if took := time.Since(began); code == 0 || took > time.Second {
		t.Errorf("the second SIGTERM ended it with %d after %v", code, took)
	}
	emitted, streamed := r.thawed()
	t.Logf("second SIGTERM: %d events acknowledged, lost 0, repeats in drops 0, at the receiver %d, in Kinesis %d", len(r.ledger.acked), emitted, streamed)
}

// stopIn is within what a stop ends, whatever its peers do.
func stopIn(t *testing.T, limit time.Duration) {
	r := frozen(t)
	began := time.Now()
	r.Signal(syscall.SIGTERM)
	code := r.Wait(2 * time.Minute)
	took := time.Since(began)
	if code != 0 || took > limit {
		t.Errorf("the stop took %v and ended with %d", took, code)
	}
	for _, want := range []string{"stop: left for this sink", `"sink":"siem"`, `"sink":"stream"`, "what is left is in the journal"} {
		if !strings.Contains(r.Output(), want) {
			t.Errorf("the stop does not say %s:\n%s", want, r.Output())
		}
	}
	emitted, streamed := r.thawed()
	t.Logf("a stop with frozen peers took %.1f s: %d events acknowledged, lost 0, repeats in drops 0, at the receiver %d, in Kinesis %d",
		took.Seconds(), len(r.ledger.acked), emitted, streamed)
}
