//go:build !race

package simulation_test

// defaultSeeds is how many seeds a plain go test runs, in about 25 s of a
// processor; task faults runs 200, task soak 20,000.
const defaultSeeds = 60
