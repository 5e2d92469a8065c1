//go:build soak

package receivers

import "testing"

// TestSoakTable: all rows, many times each.
func TestSoakTable(t *testing.T) { faultTable(t, func(r *row) int { return r.full }) }
