// Package kills ends the built program at every instant that it has, and holds what arrives to what was acknowledged.
package kills
