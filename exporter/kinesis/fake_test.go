package kinesis

import (
	"context"
	"crypto/md5"
	"encoding/json"
	"fmt"
	"math/big"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// fakeStream is a stream as the service keeps one: shards with a token bucket
// each, records that fail by themselves, resharding, limits.
type fakeStream struct {
	t      testing.TB
	mu     sync.Mutex
	name   string
	rand   *rand.Rand
	shards []*fakeShard
	made   int
	rate   float64 // records a second and shard; 0: no limit
	limit  int     // of a record; 0: 1 MiB
	mute   bool    // an invalid record is not named
	// share of records that fail by themselves, and with what.
	failing float64
	codes   []string
	// whole answers a call by itself: status and body; "": goes on.
	whole func() (int, string)
	lose  float64 // share of calls that are stored and not answered
	stored
	have map[string]int // by event_id, unpacked

	calls, most, tooEarly int
}

type fakeShard struct {
	id       string
	from, to *big.Int // hash keys, both included
	tokens   float64
	filled   time.Time
}

// stored is what the stream holds, in order.
type stored struct{ recs []fakeRecord }

type fakeRecord struct {
	data       []byte
	key, shard string
	from, to   *big.Int // its shard's range then
}

var hashSpace = new(big.Int).Lsh(big.NewInt(1), 128)

func newFakeStream(t testing.TB, shards int) *fakeStream {
	f := &fakeStream{t: t, have: map[string]int{}, name: "events", rand: rand.New(rand.NewPCG(1, 2))}
	for i := range shards {
		from := new(big.Int).Div(new(big.Int).Mul(hashSpace, big.NewInt(int64(i))), big.NewInt(int64(shards)))
		to := new(big.Int).Div(new(big.Int).Mul(hashSpace, big.NewInt(int64(i+1))), big.NewInt(int64(shards)))
		f.open(from, to.Sub(to, big.NewInt(1)))
	}
	return f
}

func (f *fakeStream) open(from, to *big.Int) {
	f.shards = append(f.shards, &fakeShard{id: fmt.Sprintf("shardId-%012d", f.made), from: from, to: to, tokens: f.rate, filled: time.Now()})
	f.made++
}

// reshard splits the largest shard, or merges the first two.
func (f *fakeStream) reshard(merge bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if merge && len(f.shards) > 1 {
		from, to := f.shards[0].from, f.shards[1].to
		f.shards = f.shards[2:]
		f.open(from, to)
	} else {
		s := f.shards[0]
		f.shards = f.shards[1:]
		mid := new(big.Int).Add(s.from, s.to)
		mid.Rsh(mid, 1)
		f.open(s.from, mid)
		f.open(new(big.Int).Add(mid, big.NewInt(1)), s.to)
	}
	sortShards(f.shards)
}

func sortShards(ss []*fakeShard) {
	for i := range ss {
		for j := i; j > 0 && ss[j].from.Cmp(ss[j-1].from) < 0; j-- {
			ss[j], ss[j-1] = ss[j-1], ss[j]
		}
	}
}

type wireRecord struct {
	Data                          []byte
	PartitionKey, ExplicitHashKey string
}

type wireResult struct {
	SequenceNumber string `json:",omitempty"`
	ShardId        string `json:",omitempty"`
	ErrorCode      string `json:",omitempty"`
	ErrorMessage   string `json:",omitempty"`
}

// put answers one call: a status and a body; status 0: no answer.
func (f *fakeStream) put(body []byte) (int, string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls++
	if f.whole != nil {
		if status, text := f.whole(); status != 200 {
			return status, text
		}
	}
	var in struct {
		Records    []wireRecord
		StreamName string
	}
	if err := json.Unmarshal(body, &in); err != nil {
		return 400, `{"__type":"SerializationException"}`
	}
	if in.StreamName != f.name {
		return 400, `{"__type":"ResourceNotFoundException","message":"Stream ` + in.StreamName + ` under account 1 not found."}`
	}
	if text := f.invalid(in.Records); text != "" {
		return 400, text
	}
	f.most = max(f.most, len(in.Records))
	var out struct {
		FailedRecordCount int
		Records           []wireResult
	}
	for _, r := range in.Records {
		res := f.store(r)
		if res.ErrorCode != "" {
			out.FailedRecordCount++
		}
		out.Records = append(out.Records, res)
	}
	if f.rand.Float64() < f.lose {
		return 0, ""
	}
	text, err := json.Marshal(out)
	if err != nil {
		panic(err)
	}
	return 200, string(text)
}

func (f *fakeStream) invalid(rs []wireRecord) string {
	limit := 1 << 20
	if f.limit > 0 {
		limit = f.limit
	}
	total := 0
	if len(rs) == 0 || len(rs) > 500 {
		return `{"__type":"ValidationException","message":"1 validation error detected: Value at 'records' failed to satisfy constraint: Member must have length less than or equal to 500"}`
	}
	for i, r := range rs {
		total += len(r.Data) + len(r.PartitionKey)
		if n := len([]rune(r.PartitionKey)); n < 1 || n > 256 {
			return fmt.Sprintf(`{"__type":"ValidationException","message":"Value at 'records.%d.member.partitionKey' failed"}`, i+1)
		}
		if len(r.Data)+len(r.PartitionKey) <= limit {
			continue
		}
		if f.mute {
			return `{"__type":"InvalidArgumentException","message":"a record is too large"}`
		}
		return fmt.Sprintf(`{"__type":"ValidationException","message":"1 validation error detected: Value at 'records.%d.member.data' failed to satisfy constraint: Member must have length less than or equal to %d"}`, i+1, limit)
	}
	if total > 5<<20 {
		return `{"__type":"InvalidArgumentException","message":"Records size exceeds 5 MB limit"}`
	}
	return ""
}

func (f *fakeStream) store(r wireRecord) wireResult {
	hash := new(big.Int)
	if r.ExplicitHashKey != "" {
		if _, ok := hash.SetString(r.ExplicitHashKey, 10); !ok || hash.Sign() < 0 || hash.Cmp(hashSpace) >= 0 {
			panic("hash key " + r.ExplicitHashKey)
		}
	} else {
		sum := md5.Sum([]byte(r.PartitionKey))
		hash.SetBytes(sum[:])
	}
	var s *fakeShard
	for _, o := range f.shards {
		if hash.Cmp(o.from) >= 0 && hash.Cmp(o.to) <= 0 {
			s = o
		}
	}
	if f.rate > 0 {
		now := time.Now()
		s.tokens = min(f.rate, s.tokens+now.Sub(s.filled).Seconds()*f.rate)
		s.filled = now
		if s.tokens < 1 {
			f.tooEarly++
			return wireResult{ErrorCode: "ProvisionedThroughputExceededException",
				ErrorMessage: "Rate exceeded for shard " + s.id + " in stream " + f.name + " under account 1."}
		}
		s.tokens--
	}
	if f.rand.Float64() < f.failing {
		code := f.codes[f.rand.IntN(len(f.codes))]
		return wireResult{ErrorCode: code, ErrorMessage: "made by the test"}
	}
	rec := fakeRecord{data: r.Data, key: r.PartitionKey, shard: s.id, from: s.from, to: s.to}
	f.recs = append(f.recs, rec)
	for _, u := range unpack(f.t, rec) {
		f.have[string(scalar(u.data, member("event_id")))]++
	}
	return wireResult{SequenceNumber: fmt.Sprint(len(f.recs)), ShardId: s.id}
}

// ServeHTTP is http.Handler's.
func (f *fakeStream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body := make([]byte, r.ContentLength)
	for n := 0; n < len(body); {
		m, err := r.Body.Read(body[n:])
		if n += m; err != nil {
			break
		}
	}
	if r.Header.Get("X-Amz-Target") != "Kinesis_20131202.PutRecords" || r.Header.Get("Content-Type") != "application/x-amz-json-1.1" ||
		!strings.HasPrefix(r.Header.Get("Authorization"), "AWS4-HMAC-SHA256 ") {
		w.WriteHeader(400)
		_, _ = w.Write([]byte(`{"__type":"UnknownOperationException"}`))
		return
	}
	status, text := f.put(body)
	if status == 0 {
		panic(http.ErrAbortHandler)
	}
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(text))
}

// direct is a caller that reaches the stream without a network and without the
// SDK's own retries.
type direct struct{ f *fakeStream }

type apiError struct{ code, message string }

func (e *apiError) Error() string        { return e.code + ": " + e.message }
func (e *apiError) ErrorCode() string    { return e.code }
func (e *apiError) ErrorMessage() string { return e.message }

func (d direct) close() {}

func (d direct) put(_ context.Context, body []byte, n int) ([]result, error) {
	status, text := d.f.put(body)
	if status == 0 {
		return nil, context.DeadlineExceeded
	}
	if status != 200 {
		var e struct {
			Type    string `json:"__type"`
			Message string
		}
		if err := json.Unmarshal([]byte(text), &e); err != nil {
			panic(err)
		}
		return nil, apiErr{&apiError{e.Type, e.Message}}
	}
	var out struct{ Records []wireResult }
	if err := json.Unmarshal([]byte(text), &out); err != nil {
		panic(err)
	}
	rs := make([]result, n)
	for i, r := range out.Records {
		rs[i] = result{stored: r.ErrorCode == "", shard: r.ShardId, code: r.ErrorCode, message: r.ErrorMessage}
		if !rs[i].stored {
			rs[i].shard = shardName.FindString(r.ErrorMessage)
		}
	}
	return rs, nil
}
