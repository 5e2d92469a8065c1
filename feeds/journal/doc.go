// Package journal is the segmented, tenant-grouped log of bytes and facts:
// append, read, recover, retain, rewrite.
package journal
