// Package failpoint names the instants between the durable steps of an event's way, at which a build for tests can end the process.
package failpoint
