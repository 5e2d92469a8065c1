package filefeed

import (
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"hash/fnv"
	"os"
	"strings"
	"syscall"
)

// A file is known by its device and inode, which are the fact's key, together
// with its head: length and CRC-32C of its first bytes, at most 1 KiB and no
// more than was read of it. The head tells a file that was truncated and written
// anew, or an inode that was given to another file, from one that merely grew.
// It goes unnoticed only where the first KiB is the same and the file is, when
// next looked at, already as long as it was read.

// maxHead is how many first bytes a file is known by.
const maxHead = 1 << 10

// inode is a device and an inode number.
type inode struct{ dev, ino uint64 }

func inodeOf(info os.FileInfo) inode {
	st := info.Sys().(*syscall.Stat_t) // what os gives on every Unix
	return inode{uint64(st.Dev), st.Ino}
}

// key is the fact's key: "file/<feed>/<device>-<inode>", hex.
func (i inode) key(prefix string) string { return fmt.Sprintf("%s%x-%x", prefix, i.dev, i.ino) }

// mark is the fact of a file: how far it is read.
type mark struct {
	Path   string `json:"path"`           // as last seen, for people
	Offset int64  `json:"offset"`         // bytes read; decompressed ones of a compressed file
	Head   int    `json:"head"`           // bytes that CRC is of
	CRC    uint32 `json:"crc"`            // CRC-32C of them
	Gen    int    `json:"gen,omitempty"`  // how often the inode began anew
	ID     string `json:"id,omitempty"`   // what the ids of its records begin with
	Done   bool   `json:"done,omitempty"` // a compressed file that was read to its end
	Size   int64  `json:"size,omitempty"` // its size then
}

func (m mark) encode() []byte {
	b, _ := json.Marshal(m) // strings and numbers: it does not fail
	return b
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// begins says whether a file that begins with head is the one marked.
func (m mark) begins(head []byte) bool {
	return len(head) >= m.Head && crc32.Checksum(head[:m.Head], castagnoli) == m.CRC
}

// know takes over the first n bytes of head, as far as they are read.
func (m *mark) know(head []byte, n int64) {
	m.Head = int(min(n, int64(len(head)), maxHead))
	m.CRC = crc32.Checksum(head[:m.Head], castagnoli)
}

// name makes the id: the same for the same file, whenever it is read again, and
// another for what stands in its place after a truncation.
func (m *mark) name(ino uint64, firstLine []byte) {
	h := fnv.New64a()
	var n [16]byte
	binary.LittleEndian.PutUint64(n[:], ino)
	binary.LittleEndian.PutUint64(n[8:], uint64(m.Gen))
	_, _ = h.Write(n[:]) // a hash does not fail
	_, _ = h.Write(firstLine[:min(len(firstLine), maxHead)])
	m.ID = "file:" + hex.EncodeToString(h.Sum(nil))
}

// loadMarks reads the facts of a feed.
func loadMarks(facts FactStore, prefix string) map[inode]mark {
	marks := map[inode]mark{}
	for key, value := range facts.Facts(prefix) {
		var i inode
		var m mark
		if _, err := fmt.Sscanf(strings.TrimPrefix(key, prefix), "%x-%x", &i.dev, &i.ino); err != nil {
			continue // not ours
		}
		if json.Unmarshal(value, &m) != nil || m.Offset < 0 || m.Head < 0 || m.Head > maxHead {
			continue // as if it were not there: the file is read again
		}
		marks[i] = m
	}
	return marks
}
