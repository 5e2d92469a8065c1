//go:build !race

package simulation_test

// defaultSeeds is how many seeds a plain go test runs.
const defaultSeeds = 200
