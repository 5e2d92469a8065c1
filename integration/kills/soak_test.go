//go:build soak

package kills

import (
	"testing"
	"time"
)

// TestSoakKills: a thousand.
func TestSoakKills(t *testing.T) { kills(t, 1000) }

// TestSoakCalls: each call of a life.
func TestSoakCalls(t *testing.T) { callKills(t, 0) }

// TestSoakStop: a stop waits for peers that do not answer, and not for ever.
func TestSoakStop(t *testing.T) { stopIn(t, 32*time.Second) }
