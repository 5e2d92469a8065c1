//go:build soak

package soak

import (
	"os"
	"testing"
	"time"
)

// TestSoakHours is for DATASYNC_SOAK_FOR (30m), at seven tenths of what the
// machine was measured to do, or DATASYNC_SOAK_RATE events/s where others use
// it too. DATASYNC_SOAK_SEED draws the same faults once more.
func TestSoakHours(t *testing.T) {
	o := plan{
		lasts: 30 * time.Minute, every: 10 * time.Second, stretch: 5 * time.Minute, share: 0.7,
		tenants: 50, outstanding: 150_000, maxAge: 8 * time.Second, rotate: 5 * time.Second,
		retain: time.Minute, journal: 512 << 20, fileSize: 16 << 20, rest: true,
	}
	if text := os.Getenv("DATASYNC_SOAK_FOR"); text != "" {
		var err error
		if o.lasts, err = time.ParseDuration(text); err != nil || o.lasts < time.Minute {
			t.Fatalf("DATASYNC_SOAK_FOR=%q: a duration from 1m on", text)
		}
	}
	o.rate = number(t, "DATASYNC_SOAK_RATE")
	o.seed = uint64(number(t, "DATASYNC_SOAK_SEED"))
	run(t, o)
}
