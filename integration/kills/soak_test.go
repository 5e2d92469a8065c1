//go:build soak

package kills

import "testing"

// TestSoakKills: a thousand.
func TestSoakKills(t *testing.T) { kills(t, 1000) }

// TestSoakCalls: each call of a life.
func TestSoakCalls(t *testing.T) { callKills(t, 0) }
