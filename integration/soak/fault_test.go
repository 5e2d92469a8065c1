package soak

import (
	"os"
	"strconv"
	"testing"
	"time"
)

// TestFaultSoakShort is the soak in the time that CI has: nine of the faults,
// kill -9 among them, and all of the checks but those that need a long life.
func TestFaultSoakShort(t *testing.T) {
	run(t, plan{
		lasts: 27 * time.Second, every: 3 * time.Second, stretch: 12 * time.Second,
		tenants: 20, rate: 1000, outstanding: 10_000, maxAge: 2 * time.Second, rotate: 2 * time.Second,
		retain: 20 * time.Second, journal: 48 << 20, fileSize: 1 << 20,
		seed: uint64(number(t, "DATASYNC_SOAK_SEED")),
	})
}

// number is an environment variable's; 0 where it is not set.
func number(t *testing.T, name string) float64 {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return 0
	}
	n, err := strconv.ParseFloat(text, 64)
	if err != nil || n <= 0 {
		t.Fatalf("%s=%q: a number above 0", name, text)
	}
	return n
}
