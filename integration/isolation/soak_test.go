//go:build soak

package isolation

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// TestSoakBombs has bodies as large as are taken, and ten thousand connections.
func TestSoakBombs(t *testing.T) { bombs(t, 10<<20, 10_000) }

// TestSoakOneDeadTenant measures long enough for a bound of a tenth.
func TestSoakOneDeadTenant(t *testing.T) { deadTenant(t, 20*time.Second, 3, 1.1, 5*time.Millisecond) }

// TestSoakBacklogAndFlood has a million events of each.
func TestSoakBacklogAndFlood(t *testing.T) { backlogAndFlood(t, 1_000_000) }

// TestSoakTenantsAreNeverMixed has more tenants, and others each time.
func TestSoakTenantsAreNeverMixed(t *testing.T) {
	for range 3 {
		seed := rand.Uint64()
		t.Run(fmt.Sprint(seed), func(t *testing.T) { neverMixed(t, seed, 60, 12_000) })
	}
}
