// Package soak runs the built program with all its real systems for hours, under load, with a fault every few seconds.
package soak
