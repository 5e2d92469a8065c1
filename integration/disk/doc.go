// Package disk holds tests of the built program on disks that fail, fill up, flip bits or hold much.
package disk
