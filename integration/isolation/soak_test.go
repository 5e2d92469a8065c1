//go:build soak

package isolation

import "testing"

// TestSoakBombs has bodies as large as are taken, and ten thousand connections.
func TestSoakBombs(t *testing.T) { bombs(t, 10<<20, 10_000) }
