package kinesis

import (
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
	"testing/synctest"
	"time"
)

// TestPartialFailuresOfEveryShare: of each call's records a share between none
// and all fails, half of all at random, while shards split and merge, and some
// records are more than the stream takes: those are refused, all others are
// there, in order per key where that was asked for. KINESIS_SIZE=full sends
// 100,000 events each way.
func TestPartialFailuresOfEveryShare(t *testing.T) {
	n := 10_000
	if os.Getenv("KINESIS_SIZE") == "full" {
		n = 100_000
	}
	for mode, o := range modes {
		seed := rand.Uint64()
		t.Run(mode, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { sendThroughFailures(t, o, n, seed) })
		})
	}
}

func sendThroughFailures(t *testing.T, o Options, n int, seed uint64) {
	f := newFakeStream(t, 4)
	f.Rand = rand.New(rand.NewPCG(seed, 0))
	f.Codes = []string{"ProvisionedThroughputExceededException"}
	f.MaxRecord = 60_000
	asked := 0
	f.Whole = func() (int, string) { // called before the records of each call are looked at
		asked++
		f.Failing = []float64{0.5, f.Rand.Float64(), 0, 1}[asked%4]
		return 200, ""
	}
	o.Tuning.Linger = 100 * time.Millisecond
	r := newRig(t, f, o, nil)
	r.patience = 24 * time.Hour
	huge := 0
	for i := 0; i < n; i += 500 {
		var lines []string
		for j := i; j < i+500; j++ {
			pad := 20
			if j%5000 == 4321 {
				pad = 70_000
				huge++
			}
			lines = append(lines, event(j, fmt.Sprintf("10.0.%d.%d", j%199, j%251), pad))
		}
		r.offer(lines)
		switch i % 5000 {
		case 500:
			f.Split()
		case 3000:
			f.Merge()
		}
	}
	r.allConfirmed()
	r.end()
	f.Lock()
	counts := f.Counts
	f.Unlock()
	if len(r.refusedBy) != huge || len(f.have) != n-huge || int(r.counts.Refused) != huge || int(r.counts.Events) != n-huge {
		t.Errorf("of %d events %d are there and %d were refused (%d are too large); counts %+v", n, len(f.have), len(r.refusedBy), huge, r.counts)
	}
	if counts.Failed < n/4 && !o.Aggregate || counts.Failed == 0 || counts.Reshards == 0 {
		t.Errorf("too little went wrong: %+v", counts)
	}
	if o.Ordered {
		inOrder(t, f)
	}
	t.Logf("seed %d: %d events; %d calls, %d records failed, %d reshards, %d events refused as too large; lost 0", seed, n, counts.Calls, counts.Failed, counts.Reshards, huge)
}
