//go:build soak

package receivers

import (
	"testing"
	"time"
)

// TestSoakTable: all rows, many times each.
func TestSoakTable(t *testing.T) { faultTable(t, table, func(r *row) int { return r.full }) }

// TestSoakOthers: receivers of other makers, killed often.
func TestSoakOthers(t *testing.T) { faultTable(t, others(), func(r *row) int { return r.full }) }

// TestSoakStalled: a receiver that stands still for ten minutes.
func TestSoakStalled(t *testing.T) {
	rows := []*row{{name: "SIGSTOP 10 min, and it goes on", full: 1, kept: true, inject: stalled(10 * time.Minute)}}
	faultTable(t, rows, func(r *row) int { return r.full })
}
