package kinesistest

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// Account holds streams by their names; it is the service's endpoint.
type Account map[string]*Stream

// request is a call of PutRecords.
type request struct {
	Records               []entry
	StreamName, StreamARN string
}

type entry struct {
	Data                          []byte
	PartitionKey, ExplicitHashKey string
	hash                          Hash
}

// result is what became of one record.
type result struct {
	SequenceNumber string `json:",omitempty"`
	ShardId        string `json:",omitempty"`
	ErrorCode      string `json:",omitempty"`
	ErrorMessage   string `json:",omitempty"`
}

// ServeHTTP is http.Handler's: the endpoint of an account with one stream.
func (s *Stream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.Lock()
	name := s.Name
	s.Unlock()
	Account{name: s}.ServeHTTP(w, r)
}

// ServeHTTP is http.Handler's. A call that is not to be answered has its
// connection broken off.
func (a Account) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 16<<20))
	if err != nil {
		panic(http.ErrAbortHandler) // the client went away
	}
	status, answer := 400, []byte(`{"__type":"UnknownOperationException"}`)
	if r.Header.Get("X-Amz-Target") == "Kinesis_20131202.PutRecords" && r.Header.Get("Content-Type") == "application/x-amz-json-1.1" &&
		strings.HasPrefix(r.Header.Get("Authorization"), "AWS4-HMAC-SHA256 ") {
		status, answer = a.Put(body)
	}
	if status == 0 {
		panic(http.ErrAbortHandler)
	}
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	w.WriteHeader(status)
	_, _ = w.Write(answer) // a client that went away asks again
}

// Put answers one call of PutRecords with a status and a body; status 0: not at all.
func (a Account) Put(body []byte) (int, []byte) {
	var in request
	if err := json.Unmarshal(body, &in); err != nil {
		return 400, []byte(`{"__type":"SerializationException"}`)
	}
	_, name, isARN := strings.Cut(in.StreamARN, ":stream/")
	if !isARN {
		name = in.StreamName
	}
	s := a[name]
	if s == nil || isARN && (in.StreamARN != s.ARN() || in.StreamName != "" && in.StreamName != name) {
		return 400, fmt.Appendf(nil, `{"__type":"ResourceNotFoundException","message":"Stream %s under account 000000000000 not found."}`, name)
	}
	return s.put(in.Records)
}

func (s *Stream) put(rs []entry) (int, []byte) {
	s.Lock()
	defer s.Unlock()
	s.Calls++
	if s.Whole != nil {
		if status, text := s.Whole(); status != 200 {
			s.Refused++
			return status, []byte(text)
		}
	}
	if text := s.invalid(rs); text != "" {
		return 400, []byte(text)
	}
	s.Most = max(s.Most, len(rs))
	var out struct {
		FailedRecordCount int
		Records           []result
	}
	now := time.Now()
	for i := range rs {
		shard, code, message := s.store(&rs[i], now)
		r := result{ShardId: shard, ErrorCode: code, ErrorMessage: message}
		if code != "" {
			out.FailedRecordCount++
		} else {
			r.SequenceNumber = fmt.Sprintf("%056d", s.Records)
		}
		out.Records = append(out.Records, r)
	}
	if s.Rand.Float64() < s.Losing {
		s.Lost++
		return 0, nil
	}
	text, err := json.Marshal(out)
	if err != nil {
		panic(err) // strings and a number always marshal
	}
	return 200, text
}
