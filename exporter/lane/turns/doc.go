// Package turns shares a bounded number of turns so that those who hang with theirs leave some to all others.
package turns
