// Package bench measures each path through the built program alone, on the same events, and prints one table.
package bench
