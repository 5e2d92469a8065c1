// Package world holds the acceptance of the program between all the systems it is for at once.
package world
