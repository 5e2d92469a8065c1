package journal

import "io/fs"

// FS is the seam between the journal and the disk: all that the journal does
// to files goes through it, so that tests can crash it, fill it and make it
// lie. Implementations are safe for concurrent use.
type FS interface {
	// Create makes a new file for reading and writing; fs.ErrExist where it exists.
	Create(path string) (File, error)
	// Open opens an existing file, for writing too where write is set.
	Open(path string, write bool) (File, error)
	// Remove unlinks; durable only after SyncDir of the folder.
	Remove(path string) error
	// List names the files of a folder, sorted; MkdirAll it first.
	List(dir string) ([]fs.FileInfo, error)
	// Dir makes a folder with its parents (sync false) or makes the entries of
	// an existing one durable (sync true).
	Dir(path string, sync bool) error
}

// File is an open file of an FS.
type File interface {
	ReadAt(p []byte, off int64) (int, error)
	WriteAt(p []byte, off int64) (int, error)
	// Sync makes data and size durable (fdatasync).
	Sync() error
	// Resize changes the size: up by allocating (fallocate), down by truncating.
	Resize(size int64) error
	Close() error
}
