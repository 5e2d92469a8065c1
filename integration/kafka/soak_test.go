//go:build soak

package kafka

import "testing"

// TestSoakRealKafka has a hundred members come and go, and a bit flipped a
// hundred times in each place of batches of each kind.
func TestSoakRealKafka(t *testing.T) {
	realKafka(t, sizes{flips: 100, freeze: 20, cycles: 100, rate: 300})
}
