//go:build !interleave

package simulation_test

// interleaved says that goroutines may be overtaken at every lock; again is how
// one seed is run again.
const (
	interleaved = false
	crosses     = 8 // see steps
	again       = "SIM_SEED=%d go test -count=1 -run TestSimulation -v ./exporter/simulation"
)

// overtake does nothing here: the build of task interleave can do it.
func overtake(uint64) (stop func()) { return func() {} }
