// Package isolation holds the tests that one tenant's trouble is its own: sinks that are dead, journals that are full, bodies that are bombs, events that are poison, and tenants that must never meet.
package isolation
