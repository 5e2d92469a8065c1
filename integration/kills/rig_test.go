package kills

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"datasync/integration/harness"
	"datasync/integration/readers"
	"datasync/integration/servers"
)

const tenants = 20

// sinks are those of every tenant: drops of two formats, one in a folder and
// one in S3 (which one, the tenant's number decides), an emitter and a stream.
const sinks = `  - name: drops
    {drops}
    compression: gzip
    deliver: {max_age: 1s, max_events: 60, manifest: true}
  - name: lake
    {lake}
    format: parquet
    deliver: {max_age: 1s, max_events: 200}
  - name: siem
    emitter: {address: "{receiver}", tls: {ca: "{ca}"}, rotate_every: 1s, retry_max: 1s}
  - name: stream
    kinesis: {stream: "{stream}", region: eu-west-1, endpoint: "{kinesis}", partition_key: client_ip, aggregate: {odd}}
`

// rig is the service with real servers around it.
type rig struct {
	t *testing.T
	*harness.Service
	store    *servers.Store
	bucket   string // its folder
	streams  *servers.Kinesalite
	receiver *servers.Receive
	ledger   *ledger
	rng      *rand.Rand
	starting time.Duration // how long the last whole start took
}

func newRig(t *testing.T, seed uint64) *rig {
	t.Helper()
	servers.Credentials(t)
	r := &rig{t: t, Service: harness.NewService(t, ""), store: servers.NewStore(t), streams: servers.NewKinesalite(t),
		receiver: servers.NewReceive(t), rng: rand.New(rand.NewPCG(seed, 0))}
	r.bucket = r.store.Bucket("lake")
	r.streams.Stream("plain", 2)
	r.streams.Stream("packed", 2)
	s3 := fmt.Sprintf("s3: {bucket: lake, region: us-east-1, endpoint: %q, path_style: true}", r.store.URL())
	dir := fmt.Sprintf("dir: {path: %q}", filepath.Join(r.Dir, "drops"))
	for i := 1; i <= tenants; i++ {
		values := []string{"{drops}", dir, "{lake}", s3, "{stream}", "packed", "{odd}", "true", "{kinesis}", r.streams.URL()}
		if i%2 == 0 {
			values = []string{"{drops}", s3, "{lake}", dir, "{stream}", "plain", "{odd}", "false", "{kinesis}", r.streams.URL()}
		}
		r.Write(fmt.Sprintf("tenants/t%04d.yaml", i), fmt.Sprintf("tenant: t%04[1]d\napi_keys: [key-of-t%04[1]d]\nsinks:\n%[2]s",
			i, strings.NewReplacer(values...).Replace(r.receiver.In(sinks))))
	}
	r.ledger = newLedger(t, r.Feed, seed, tenants)
	return r
}

// begin starts the program and does not wait for it.
func (r *rig) begin() {
	r.t.Helper()
	if r.Process != nil && r.Running() {
		r.t.Fatal("the life before has not ended")
	}
	r.Process = harness.Start(r.t, "datasync run", "run", "--config", filepath.Join(r.Dir, "datasync.yaml"))
}

// up starts the program and waits until it is ready, to a few milliseconds.
func (r *rig) up() {
	r.t.Helper()
	began := time.Now()
	r.begin()
	for !ready(r.Admin) {
		if !r.Running() {
			r.t.Fatalf("the service ended:\n%s", r.Output())
		}
		if time.Since(began) > time.Minute {
			r.t.Fatalf("the service is not ready:\n%s", r.Output())
		}
		harness.Pause(2 * time.Millisecond)
	}
	r.starting = time.Since(began)
}

func ready(admin string) bool {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+admin+"/readyz", nil)
	if err != nil {
		return false
	}
	resp, err := http.DefaultClient.Do(req)
	return err == nil && resp.Body.Close() == nil && resp.StatusCode == http.StatusOK
}

// between draws a duration.
func (r *rig) between(from, to time.Duration) time.Duration {
	return from + time.Duration(r.rng.Int64N(int64(to-from)))
}

// pause lets the program live for a drawn time.
func (r *rig) pause(from, to time.Duration) {
	harness.Pause(r.between(from, to))
}

// twice ends the program with SIGTERM after SIGTERM: two that come in the same
// instant are one to the program, but not many.
func (r *rig) twice(between time.Duration) {
	r.t.Helper()
	for began := time.Now(); r.Running(); harness.Pause(between + time.Millisecond) {
		if time.Since(began) > 20*time.Second {
			r.t.Fatalf("the program outlives SIGTERM after SIGTERM:\n%s", r.Output())
		}
		r.Signal(syscall.SIGTERM)
	}
}

// settle waits until all is delivered, stops everything, and holds what
// arrived to the ledger.
func (r *rig) settle() (emitted, streamed int) {
	r.t.Helper()
	r.ledger.stop()
	l := r.Delivered(int64(len(r.ledger.acked)), 3*time.Minute)
	if !l.Balanced {
		r.t.Errorf("the ledger does not balance: %+v", l)
	}
	r.End(false)
	r.receiver.Stop(30 * time.Second)
	folder := filepath.Join(r.Dir, "drops")
	drops := harness.Drops(r.t, folder, "drops")
	drops.AddIDs(harness.Drops(r.t, r.bucket, "drops"))
	harness.Drops(r.t, folder, "lake") // their numbers
	harness.Drops(r.t, r.bucket, "lake")
	lake := readers.IDs(r.t, folder, "lake")
	lake.AddIDs(readers.IDs(r.t, r.bucket, "lake"))
	for where, ids := range map[string]harness.IDs{"NDJSON drops": drops, "Parquet drops": lake} {
		if repeats := r.ledger.settle(where, ids); repeats > 0 {
			r.t.Errorf("%s: %d events came again", where, repeats)
		}
	}
	emitted = r.ledger.settle("the emitters' receiver", r.receiver.IDs())
	_, ids := r.streams.IDs("plain")
	_, packed := r.streams.IDs("packed")
	ids.AddIDs(packed)
	return emitted, r.ledger.settle("Kinesis", ids)
}
