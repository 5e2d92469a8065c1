package kinesis

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
)

// answersOfKind are answers of the service and others that look like one.
var answersOfKind = []struct {
	text string
	ours bool // read without the SDK
}{
	{`{"FailedRecordCount":0,"Records":[{"SequenceNumber":"49543463076548007577105092703039560359975228518395012686","ShardId":"shardId-000000000000"}]}`, true},
	{`{"EncryptionType":"KMS","FailedRecordCount":1,"Records":[{"ErrorCode":"ProvisionedThroughputExceededException","ErrorMessage":"Rate exceeded for shard shardId-000000000001 in stream s under account 1."},{"SequenceNumber":"1","ShardId":"shardId-000000000001"}]}`, true},
	{"\n{ \"Records\" : [ {\t\"ShardId\" : \"s\" , \"SequenceNumber\" : \"1\" } , { } ] , \"FailedRecordCount\" : 10 }\r\n", true},
	{`{"Records":[]}`, true},
	{`{"Records":[{"SequenceNumber":"1","ErrorCode":""}]}`, true}, // an empty code is a code
	{`{"Records":[{"SequenceNumber":"","ShardId":""}]}`, true},
	{`{"Records":[{"SequenceNumber":null,"ShardId":null,"ErrorCode":"InternalFailure","ErrorMessage":"Internal service failure."}]}`, false},
	{`{"Records":[{"ErrorCode":"a\nb","ErrorMessage":"é"}]}`, false},
	{`{"Records":[{"ErrorCode":"InternalFailure","ErrorMessage":"é"}]}`, false},
	{`{"FailedRecordCount":-1,"Records":[]}`, false},
	{`{"FailedRecordCount":01,"Records":[]}`, false},
	{`{"FailedRecordCount":1e3,"Records":[]}`, false},
	{`{"Records":[{"New":{"a":[1]}}],"New":true}`, false},
	{`{"FailedRecordCount":0}`, false},
	{`{"Records":[],"Records":[{}]}`, false},
	{`{"Records":[{}`, false},
	{`{"Records":[{},]}`, false},
	{`{"Records":[{"ShardId":"s",}]}`, false},
	{`{"Records":[{"ShardId":"s}]}`, false},
	{`{"Records":[{"ShardId" "s"}]}`, false},
	{`{"Records":[{}]} {}`, false},
	{`{"Records":null}`, false},
	{``, false},
	{`[]`, false},
}

// Each way an answer is read by us where that was meant, and comes to the same
// as the SDK's reading, whoever read it.
func TestAnswersAreTheSDKs(t *testing.T) {
	for _, c := range answersOfKind {
		if _, ok := readResults([]byte(c.text), 1); ok != c.ours {
			t.Errorf("%s: read by us %v, want %v", c.text, ok, c.ours)
		}
		sdk := kinesis.New(kinesis.Options{Region: "eu-west-1", Retryer: aws.NopRetryer{}, Credentials: credentials.NewStaticCredentialsProvider("a", "b", ""),
			HTTPClient: webFunc(func(r *http.Request) (*http.Response, error) {
				return &http.Response{StatusCode: 200, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(c.text)), Request: r}, nil
			})})
		in := &kinesis.PutRecordsInput{StreamName: aws.String("s"), Records: []types.PutRecordsRequestEntry{}}
		want, wantErr := sdk.PutRecords(t.Context(), in)
		x := &exchange{body: lend(nil), n: 1}
		got, err := sdk.PutRecords(x.in(context.Background()), in, byExchange)
		if fmt.Sprint(err) != fmt.Sprint(wantErr) {
			t.Errorf("%s: %v, the SDK alone: %v", c.text, err, wantErr)
		}
		if err != nil || wantErr != nil {
			continue
		}
		rs := x.results
		if rs == nil {
			rs = resultsOf(got.Records)
		}
		if w := resultsOf(want.Records); !reflect.DeepEqual(rs, w) {
			t.Errorf("%s:\n%+v, the SDK alone:\n%+v", c.text, rs, w)
		}
	}
}

// What we read is JSON, and says to encoding/json what it says to us.
func FuzzReadResults(f *testing.F) {
	for _, c := range answersOfKind {
		f.Add([]byte(c.text))
	}
	f.Fuzz(func(t *testing.T, answer []byte) {
		rs, ok := readResults(answer, 1)
		if !ok {
			return
		}
		var want struct {
			FailedRecordCount int
			EncryptionType    string
			Records           []types.PutRecordsResultEntry
		}
		if err := json.Unmarshal(answer, &want); err != nil {
			t.Fatalf("%q was read, and is none: %v", answer, err)
		}
		if w := resultsOf(want.Records); !reflect.DeepEqual(rs, w) {
			t.Errorf("%q:\n%+v, encoding/json:\n%+v", answer, rs, w)
		}
	})
}
