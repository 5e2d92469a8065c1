package s3feed

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
)

// object is one that was announced.
type object struct {
	Bucket, Key, Version, ETag, Region string
}

func (o object) String() string { return "s3://" + o.Bucket + "/" + o.Key }

// id stands for an object and its content: an object that is replaced is another.
func (o object) id() string {
	h := sha256.New()
	fmt.Fprintf(h, "%s\x00%s\x00%s\x00%s", o.Bucket, o.Key, o.Version, strings.Trim(o.ETag, `"`))
	return hex.EncodeToString(h.Sum(nil)[:12])
}

// errPoison is a message that is no notification.
var errPoison = errors.New("message is no S3 event notification")

// notification is S3's own form, EventBridge's, and SNS's around either.
type notification struct {
	Type    string // SNS
	Message *string
	Event   string // of S3's test message
	Records []struct {
		EventSource string `json:"eventSource"`
		EventName   string `json:"eventName"`
		Region      string `json:"awsRegion"`
		S3          struct {
			Bucket struct{ Name string }
			Object struct {
				Key       string
				ETag      string `json:"eTag"`
				VersionID string `json:"versionId"`
			}
		} `json:"s3"`
	}
	Source     string `json:"source"` // EventBridge
	DetailType string `json:"detail-type"`
	Region     string `json:"region"`
	Detail     struct {
		Bucket struct{ Name string }
		Object struct {
			Key       string
			ETag      string `json:"etag"`
			VersionID string `json:"version-id"`
		}
	} `json:"detail"`
}

// announced are the objects that a message tells of: none in S3's test message,
// and in one of an event by which nothing was made.
func announced(body []byte) ([]object, error) {
	for range 3 { // SNS may lie around, even twice
		var n notification
		if err := json.Unmarshal(bytes.TrimSpace(body), &n); err != nil {
			return nil, fmt.Errorf("%w: %w", errPoison, err)
		}
		switch {
		case n.Message != nil && n.Type == "Notification":
			body = []byte(*n.Message)
			continue
		case n.Event == "s3:TestEvent":
			return nil, nil
		case n.Source == "aws.s3":
			return n.bridged()
		case n.Records != nil:
			return n.direct()
		}
		break
	}
	return nil, fmt.Errorf("%w: neither S3's form, nor EventBridge's, nor SNS's around them", errPoison)
}

func (n *notification) bridged() ([]object, error) {
	if n.DetailType != "Object Created" {
		return nil, nil
	}
	d := &n.Detail
	o := object{d.Bucket.Name, d.Object.Key, d.Object.VersionID, d.Object.ETag, n.Region}
	if o.Bucket == "" || o.Key == "" {
		return nil, fmt.Errorf("%w: it names no bucket or no key", errPoison)
	}
	return []object{o}, nil
}

func (n *notification) direct() (out []object, err error) {
	for i := range n.Records {
		r := &n.Records[i]
		if r.EventSource != "aws:s3" {
			return nil, fmt.Errorf("%w: an event of %.64q", errPoison, r.EventSource)
		}
		if !strings.HasPrefix(r.EventName, "ObjectCreated:") {
			continue
		}
		key, err := url.QueryUnescape(r.S3.Object.Key) // S3 writes it as a form's value
		if err != nil || key == "" || r.S3.Bucket.Name == "" {
			return nil, fmt.Errorf("%w: it names no bucket or no key", errPoison)
		}
		out = append(out, object{r.S3.Bucket.Name, key, r.S3.Object.VersionID, r.S3.Object.ETag, r.Region})
	}
	return out, nil
}
