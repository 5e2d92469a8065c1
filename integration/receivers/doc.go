// Package receivers holds the scenarios of emitters to TLS receivers, of other makers and our own, and all sorts of ends that these can have.
package receivers
