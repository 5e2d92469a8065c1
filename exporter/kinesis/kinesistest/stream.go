package kinesistest

import (
	"bytes"
	"cmp"
	"crypto/md5"
	"fmt"
	"math/big"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// What the service lets a shard take a second.
const (
	ServiceRecords = 1000
	ServiceBytes   = 1 << 20
)

// Conditions are what a stream lets its writers live with; the zero value is a
// stream without limits that never fails.
type Conditions struct {
	// RecordRate and ByteRate are what a shard takes a second; 0: no limit.
	RecordRate, ByteRate float64
	// MaxRecord is the most bytes of a record with its key; 0 is 1 MiB. Mute
	// has the answer not name the record that is larger.
	MaxRecord int
	Mute      bool
	// Failing is the share of records that fail by themselves, each with one of Codes.
	Failing float64
	Codes   []string
	// Whole answers a call by itself; status 200: it does not. nil: it never does.
	Whole func() (status int, body string)
	// Losing is the share of calls that are stored and not answered.
	Losing float64
}

// Counts are what happened to a stream.
type Counts struct {
	Calls     int
	Most      int // records in the largest call
	Records   int // stored
	Throttled int // records refused by a shard's limits
	Failed    int // records that failed by themselves
	Refused   int // calls that Whole answered
	Lost      int // calls that were stored and not answered
	Reshards  int
}

// Record is a record that is stored.
type Record struct {
	Data       []byte
	Key, Shard string
	From, To   Hash // what its shard had then, both included
}

// Hash is a place in the service's hash space: 128 bits, the largest first.
type Hash [16]byte

// Stream is a stream as the service keeps one. All its fields are guarded by
// its lock once it is written to.
type Stream struct {
	sync.Mutex
	Name string
	Conditions
	Counts
	// Rand is where chance comes from.
	Rand *rand.Rand
	// Stored is called for every record that is stored, in the stream's order,
	// with the lock held.
	Stored func(Record)

	shards []*shard // in the order of their hashes
	made   int
}

type shard struct {
	id             string
	from, to       Hash
	records, bytes bucket
}

// bucket is what a shard can take at once.
type bucket struct {
	tokens float64
	filled time.Time // zero: full
}

// fill lets it fill up to most by what rate gave since the last time.
func (b *bucket) fill(rate, most float64, now time.Time) {
	if b.filled.IsZero() {
		b.tokens = most
	} else {
		b.tokens = min(most, b.tokens+now.Sub(b.filled).Seconds()*rate)
	}
	b.filled = now
}

// NewStream makes a stream whose shards share the hash space evenly.
func NewStream(name string, shards int, seed uint64) *Stream {
	s := &Stream{Name: name, Rand: rand.New(rand.NewPCG(seed, 2)), Stored: func(Record) {}}
	space := new(big.Int).Lsh(big.NewInt(1), 128)
	edge := func(i int) *big.Int {
		return new(big.Int).Div(new(big.Int).Mul(space, big.NewInt(int64(i))), big.NewInt(int64(shards)))
	}
	for i := range shards {
		s.open(hashOf(edge(i)), hashOf(before(edge(i+1))))
	}
	return s
}

// ARN is the stream's name in full.
func (s *Stream) ARN() string { return "arn:aws:kinesis:eu-west-1:000000000000:stream/" + s.Name }

func before(i *big.Int) *big.Int { return new(big.Int).Sub(i, big.NewInt(1)) }

func hashOf(i *big.Int) (h Hash) {
	i.FillBytes(h[:])
	return h
}

func (h Hash) compare(o Hash) int { return bytes.Compare(h[:], o[:]) }

func (s *Stream) open(from, to Hash) {
	at, _ := slices.BinarySearchFunc(s.shards, from, func(x *shard, h Hash) int { return x.from.compare(h) })
	s.shards = slices.Insert(s.shards, at, &shard{id: fmt.Sprintf("shardId-%012d", s.made), from: from, to: to})
	s.made++
}

// Split closes the shard with the most of the hash space and opens two for it.
func (s *Stream) Split() {
	s.Lock()
	defer s.Unlock()
	width := func(x *shard) *big.Int {
		return new(big.Int).Sub(new(big.Int).SetBytes(x.to[:]), new(big.Int).SetBytes(x.from[:]))
	}
	at := 0
	for i, x := range s.shards {
		if width(x).Cmp(width(s.shards[at])) > 0 {
			at = i
		}
	}
	x := s.shards[at]
	s.shards = slices.Delete(s.shards, at, at+1)
	middle := new(big.Int).Add(new(big.Int).SetBytes(x.from[:]), new(big.Int).SetBytes(x.to[:]))
	middle.Add(middle, big.NewInt(1)).Rsh(middle, 1)
	s.open(x.from, hashOf(before(middle)))
	s.open(hashOf(middle), x.to)
	s.Reshards++
}

// Merge closes the two neighbours that have the least of the hash space and
// opens one for them; a stream of one shard stays as it is.
func (s *Stream) Merge() {
	s.Lock()
	defer s.Unlock()
	if len(s.shards) < 2 {
		return
	}
	at, least := 0, (*big.Int)(nil)
	for i := range len(s.shards) - 1 {
		w := new(big.Int).Sub(new(big.Int).SetBytes(s.shards[i+1].to[:]), new(big.Int).SetBytes(s.shards[i].from[:]))
		if least == nil || w.Cmp(least) < 0 {
			at, least = i, w
		}
	}
	from, to := s.shards[at].from, s.shards[at+1].to
	s.shards = slices.Delete(s.shards, at, at+2)
	s.open(from, to)
	s.Reshards++
}

// Shards is how many are open.
func (s *Stream) Shards() int {
	s.Lock()
	defer s.Unlock()
	return len(s.shards)
}

// place is where a record goes: by its explicit hash key, else by the MD5 of
// its partition key.
func place(key, explicit string) (Hash, error) {
	if explicit == "" {
		return md5.Sum([]byte(key)), nil
	}
	i, ok := new(big.Int).SetString(explicit, 10)
	if !ok || i.Sign() < 0 || i.BitLen() > 128 {
		return Hash{}, fmt.Errorf("explicit hash key %q", explicit)
	}
	return hashOf(i), nil
}

// store takes in one record, or says why not: a code and a message.
func (s *Stream) store(r *entry, now time.Time) (id, code, message string) {
	at, found := slices.BinarySearchFunc(s.shards, r.hash, func(x *shard, h Hash) int { return x.from.compare(h) })
	if !found {
		at--
	}
	x, size := s.shards[at], float64(len(r.Data)+len(r.PartitionKey))
	x.records.fill(s.RecordRate, s.RecordRate, now)
	x.bytes.fill(s.ByteRate, max(s.ByteRate, ServiceBytes), now)
	if s.RecordRate > 0 && x.records.tokens < 1 || s.ByteRate > 0 && x.bytes.tokens < size {
		s.Throttled++
		return "", "ProvisionedThroughputExceededException", "Rate exceeded for shard " + x.id + " in stream " + s.Name + " under account 000000000000."
	}
	if s.RecordRate > 0 {
		x.records.tokens--
	}
	if s.ByteRate > 0 {
		x.bytes.tokens -= size
	}
	if s.Rand.Float64() < s.Failing {
		s.Failed++
		return "", s.Codes[s.Rand.IntN(len(s.Codes))], "made by the test"
	}
	s.Records++
	s.Stored(Record{Data: r.Data, Key: r.PartitionKey, Shard: x.id, From: x.from, To: x.to})
	return x.id, "", ""
}

// invalid says what is wrong with a call; "": nothing.
func (s *Stream) invalid(rs []entry) string {
	limit := cmp.Or(s.MaxRecord, 1<<20)
	if len(rs) == 0 || len(rs) > 500 {
		return `{"__type":"ValidationException","message":"1 validation error detected: Value at 'records' failed to satisfy constraint: Member must have length less than or equal to 500"}`
	}
	total := 0
	for i, r := range rs {
		size := len(r.Data) + len(r.PartitionKey)
		total += size
		if n := len([]rune(r.PartitionKey)); n < 1 || n > 256 {
			return fmt.Sprintf(`{"__type":"ValidationException","message":"Value at 'records.%d.member.partitionKey' failed"}`, i+1)
		}
		var err error
		if rs[i].hash, err = place(r.PartitionKey, r.ExplicitHashKey); err != nil {
			return `{"__type":"InvalidArgumentException","message":"Invalid ExplicitHashKey. ExplicitHashKey must be in the range: [0, 2^128-1]."}`
		}
		switch {
		case size <= limit:
		case s.Mute:
			return `{"__type":"InvalidArgumentException","message":"a record is too large"}`
		default:
			return fmt.Sprintf(`{"__type":"ValidationException","message":"1 validation error detected: Value at 'records.%d.member.data' failed to satisfy constraint: Member must have length less than or equal to %d"}`, i+1, limit)
		}
	}
	if total > 5<<20 {
		return `{"__type":"InvalidArgumentException","message":"Records size exceeds 5 MB limit"}`
	}
	return ""
}
