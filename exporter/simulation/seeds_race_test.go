//go:build race

package simulation_test

// defaultSeeds is fewer under the race detector, which slows a seed down tenfold.
const defaultSeeds = 5
