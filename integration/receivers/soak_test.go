//go:build soak

package receivers

import "testing"

// TestSoakTable: all rows, many times each.
func TestSoakTable(t *testing.T) { faultTable(t, table, func(r *row) int { return r.full }) }

// TestSoakOthers: receivers of other makers, killed often.
func TestSoakOthers(t *testing.T) { faultTable(t, others(), func(r *row) int { return r.full }) }
