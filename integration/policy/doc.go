// Package policy holds the rules of the house as tests: import arrows, homes of libraries, sizes, comments and documents.
package policy
