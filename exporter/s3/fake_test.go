package s3

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"datasync/exporter/tenants"
)

// object is one of the fake's.
type object struct {
	body   string
	header http.Header
}

// fake is an S3 that holds what it is sent to its checksums and conditions,
// and fails as it is told to.
type fake struct {
	*httptest.Server
	t  testing.TB
	mu sync.Mutex

	objects map[string]object
	uploads map[string]*upload
	writes  map[string]int // how often each key was written
	calls   []string       // steps, in order
	// fault, where not nil, is asked before a step is done; n counts the step's calls from 1.
	fault func(step string, n int) *fault
	// allow, where not nil, refuses the credentials of a request.
	allow func(r *http.Request) bool
	// assumed is what the role was last asked for with.
	assumed     url.Values
	lasts       time.Duration // of a role's credentials; 0: an hour
	connections atomic.Int64
	// ignores has it take If-None-Match for nothing.
	ignores bool
}

type upload struct {
	key    string
	header http.Header
	parts  map[int][]byte
}

// fault is how a step fails.
type fault struct {
	done   bool // the step is done all the same
	status int  // 0: the connection is cut
	code   string
	header map[string]string
	wait   <-chan struct{} // it answers only after this
	drip   bool            // the answer's body never ends
	torn   bool            // the connection is cut with half of the request's body read
	short  bool            // the answer is cut in its first line
	lies   bool            // the answer is what it should be, with other checksums in it
	slow   time.Duration   // between the bytes of an answer that is what it should be
}

func newFake(t testing.TB) *fake {
	f := &fake{t: t, objects: map[string]object{}, uploads: map[string]*upload{}, writes: map[string]int{}}
	f.Server = httptest.NewUnstartedServer(f)
	f.Config.ConnState = func(_ net.Conn, st http.ConnState) {
		if st == http.StateNew {
			f.connections.Add(1)
		}
	}
	f.Start()
	t.Cleanup(f.Close)
	return f
}

func (f *fake) settings() *tenants.S3Sink {
	return &tenants.S3Sink{Bucket: "lake", Prefix: "bots", PathStyle: true, ConditionalPut: true, AWS: tenants.AWS{Region: "eu-west-1", Endpoint: f.URL}}
}

// step names what a request asks for.
func step(r *http.Request) string {
	q := r.URL.Query()
	switch m := r.Method; {
	case strings.Contains(r.URL.Path, "/.datasync-probe/"):
		return "probe " + strings.ToLower(m)
	case m == http.MethodHead && strings.Count(strings.Trim(r.URL.Path, "/"), "/") == 0:
		return "bucket"
	case m == http.MethodPost && q.Has("uploads"):
		return "create"
	case m == http.MethodPost && q.Has("uploadId"):
		return "complete"
	case m == http.MethodPost:
		return "assume"
	case m == http.MethodPut && q.Has("uploadId"):
		return "part"
	case m == http.MethodDelete && q.Has("uploadId"):
		return "abort"
	case m == http.MethodGet && q.Has("uploads"):
		return "list"
	default:
		return strings.ToLower(m)
	}
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	st := step(r)
	f.mu.Lock()
	f.calls = append(f.calls, st)
	var flt *fault
	if f.fault != nil {
		n := 0
		for _, c := range f.calls {
			if c == st {
				n++
			}
		}
		flt = f.fault(st, n)
	}
	f.mu.Unlock()
	if st == "assume" {
		w.Header().Set("X-Form", "sts")
	}
	if f.allow != nil && !f.allow(r) {
		refuse(w, 403, "InvalidAccessKeyId")
		return
	}
	if flt == nil {
		f.do(w, r, st)
		return
	}
	f.fail(w, r, st, flt)
}

// fail fails a step as it was told to.
func (f *fake) fail(w http.ResponseWriter, r *http.Request, st string, flt *fault) {
	rec := httptest.NewRecorder()
	switch {
	case flt.torn:
		_, _ = io.CopyN(io.Discard, r.Body, r.ContentLength/2)
	case flt.done, flt.lies, flt.slow > 0:
		f.do(rec, r, st)
	default:
		_, _ = io.Copy(io.Discard, r.Body)
	}
	if flt.wait != nil {
		<-flt.wait
	}
	switch {
	case flt.lies || flt.slow > 0:
		give(w, rec, flt)
		return
	case flt.status == 0:
		c, _, err := w.(http.Hijacker).Hijack()
		if err == nil {
			if flt.short {
				_, _ = io.WriteString(c, "HTTP/1.1 200 O")
			}
			_ = c.Close()
		}
		return
	}
	for k, v := range flt.header {
		w.Header().Set(k, v)
	}
	if flt.drip {
		w.WriteHeader(flt.status)
		_, _ = io.WriteString(w, "<Error>")
		w.(http.Flusher).Flush()
		<-r.Context().Done()
		return
	}
	refuse(w, flt.status, flt.code)
}

// give gives an answer slowly, or with checksums that are not those of what was stored.
func give(w http.ResponseWriter, rec *httptest.ResponseRecorder, flt *fault) {
	for k, v := range rec.Header() {
		w.Header()[k] = v
	}
	if flt.lies {
		for _, k := range []string{"ETag", "X-Amz-Checksum-Sha256", "X-Amz-Checksum-Crc32", "X-Amz-Meta-" + metaSHA256} {
			w.Header().Set(k, `"AAAAAA=="`)
		}
	}
	w.WriteHeader(rec.Code)
	for _, c := range rec.Body.Bytes() {
		<-time.After(flt.slow)
		_, _ = w.Write([]byte{c})
		w.(http.Flusher).Flush()
	}
}

func refuse(w http.ResponseWriter, status int, code string) {
	form := "<Error><Code>%s</Code><Message>as told</Message></Error>"
	if w.Header().Get("X-Form") == "sts" {
		form = "<ErrorResponse>" + form + "</ErrorResponse>"
	}
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	fmt.Fprintf(w, form, code)
}

// payload reads a body and holds it to what the request says of it.
func payload(r *http.Request) ([]byte, string) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, "IncompleteBody"
	}
	sum := sha256.Sum256(body)
	if r.Method == http.MethodPost && r.Header.Get("X-Amz-Content-Sha256") == "" {
		return body, "" // STS
	}
	if h := r.Header.Get("X-Amz-Content-Sha256"); h != hex.EncodeToString(sum[:]) {
		return nil, "XAmzContentSHA256Mismatch"
	}
	s256, c32 := r.Header.Get("X-Amz-Checksum-Sha256"), r.Header.Get("X-Amz-Checksum-Crc32")
	crc := binary.BigEndian.AppendUint32(nil, crc32.ChecksumIEEE(body))
	switch {
	case s256 == "" && c32 == "" && r.Method == http.MethodPut:
		return nil, "MissingChecksum"
	case s256 != "" && s256 != base64.StdEncoding.EncodeToString(sum[:]), c32 != "" && c32 != base64.StdEncoding.EncodeToString(crc):
		return nil, "BadDigest"
	}
	return body, ""
}

func (f *fake) do(w http.ResponseWriter, r *http.Request, st string) {
	body, bad := payload(r)
	if bad != "" {
		refuse(w, 400, bad)
		return
	}
	key := strings.TrimPrefix(r.URL.Path, "/lake/")
	f.mu.Lock()
	defer f.mu.Unlock()
	o, there := f.objects[key]
	id := r.URL.Query().Get("uploadId")
	up := f.uploads[id]
	if up == nil && id != "" {
		refuse(w, 404, "NoSuchUpload")
		return
	}
	switch st {
	case "put", "probe put":
		f.write(w, r, key, object{string(body), r.Header.Clone()})
	case "bucket":
		w.Header().Set("X-Amz-Bucket-Region", "eu-west-1")
	case "head":
		if !there {
			w.WriteHeader(404)
			return
		}
		for _, k := range []string{metaID, metaSHA256} {
			if v := o.header.Get("X-Amz-Meta-" + k); v != "" {
				w.Header().Set("X-Amz-Meta-"+k, v)
			}
		}
		w.Header().Set("Content-Length", strconv.Itoa(len(o.body)))
	case "delete", "probe delete":
		delete(f.objects, key)
		w.WriteHeader(204)
	case "create":
		id := fmt.Sprintf("upload-%d", len(f.calls))
		f.uploads[id] = &upload{key, r.Header.Clone(), map[int][]byte{}}
		fmt.Fprintf(w, "<InitiateMultipartUploadResult><Key>%s</Key><UploadId>%s</UploadId></InitiateMultipartUploadResult>", key, id)
	case "part":
		n, _ := strconv.Atoi(r.URL.Query().Get("partNumber"))
		up.parts[n] = body
		w.Header().Set("ETag", fmt.Sprintf(`"part-%d"`, n))
		w.Header().Set("X-Amz-Checksum-Crc32", r.Header.Get("X-Amz-Checksum-Crc32"))
	case "complete":
		f.complete(w, r, id, up, body)
	case "abort":
		delete(f.uploads, id)
		w.WriteHeader(204)
	case "assume":
		f.assumed, _ = url.ParseQuery(string(body))
		lasts := f.lasts
		if lasts == 0 {
			lasts = time.Hour
		}
		fmt.Fprintf(w, "<%[1]sResponse><%[1]sResult><Credentials><AccessKeyId>ASIAROLE</AccessKeyId><SecretAccessKey>s</SecretAccessKey>"+
			"<SessionToken>t</SessionToken><Expiration>%[2]s</Expiration></Credentials></%[1]sResult></%[1]sResponse>",
			f.assumed.Get("Action"), time.Now().Add(lasts).UTC().Format(time.RFC3339))
	case "list":
		f.list(w, r.URL.Query().Get("prefix"))
	}
}

// write stores an object on the request's condition.
func (f *fake) write(w http.ResponseWriter, r *http.Request, key string, o object) bool {
	if _, there := f.objects[key]; there && !f.ignores && r.Header.Get("If-None-Match") == "*" {
		refuse(w, 412, "PreconditionFailed")
		return false
	}
	f.objects[key] = o
	f.writes[key]++
	return true
}

func (f *fake) complete(w http.ResponseWriter, r *http.Request, id string, up *upload, body []byte) {
	var want struct {
		Part []struct {
			PartNumber          int
			ETag, ChecksumCRC32 string
		}
	}
	if err := xml.Unmarshal(body, &want); err != nil {
		refuse(w, 400, "MalformedXML")
		return
	}
	var whole []byte
	for i, p := range want.Part {
		crc := binary.BigEndian.AppendUint32(nil, crc32.ChecksumIEEE(up.parts[p.PartNumber]))
		if p.PartNumber != i+1 || p.ETag != fmt.Sprintf(`"part-%d"`, i+1) || p.ChecksumCRC32 != base64.StdEncoding.EncodeToString(crc) {
			refuse(w, 400, "InvalidPart")
			return
		}
		whole = append(whole, up.parts[p.PartNumber]...)
	}
	if r.Header.Get("X-Amz-Mp-Object-Size") != strconv.Itoa(len(whole)) {
		refuse(w, 400, "InvalidRequest")
		return
	}
	if f.write(w, r, up.key, object{string(whole), up.header}) {
		delete(f.uploads, id)
		fmt.Fprintf(w, "<CompleteMultipartUploadResult><Key>%s</Key></CompleteMultipartUploadResult>", up.key)
	}
}

func (f *fake) list(w http.ResponseWriter, prefix string) {
	var b bytes.Buffer
	for id, u := range f.uploads {
		if strings.HasPrefix(u.key, prefix) {
			fmt.Fprintf(&b, "<Upload><Key>%s</Key><UploadId>%s</UploadId></Upload>", u.key, id)
		}
	}
	fmt.Fprintf(w, "<ListMultipartUploadsResult>%s</ListMultipartUploadsResult>", b.String())
}

// count is how often a step was asked for.
func (f *fake) count(st string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for _, c := range f.calls {
		if c == st {
			n++
		}
	}
	return n
}

// steps are the calls that are about drops, in order.
func (f *fake) steps() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return strings.Join(slices.DeleteFunc(slices.Clone(f.calls), func(s string) bool { return strings.HasPrefix(s, "probe") }), " ")
}

// on makes a fault of the n-th call of one step; n 0: of all of them.
func on(step string, n int, flt fault) func(string, int) *fault {
	return func(s string, k int) *fault {
		if s == step && (n == 0 || k == n) {
			return &flt
		}
		return nil
	}
}
