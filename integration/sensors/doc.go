// Package sensors has other makers' sensors and their records go through the built program.
package sensors
