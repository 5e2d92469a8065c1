// Package firehose speaks the contract of Amazon Data Firehose's HTTP endpoint delivery, version 1.0: the body of its requests and of the answers it takes.
package firehose

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
)

// The headers of a delivery, in canonical form.
const (
	// RequestID is the same however often a delivery is tried.
	RequestID = "X-Amz-Firehose-Request-Id"
	// AccessKey is the key that the stream was given for this endpoint.
	AccessKey = "X-Amz-Firehose-Access-Key"
)

// MaxID bounds a request's id in bytes; a real one is a GUID.
const MaxID = 256

// Decode takes the body {"requestId":…,"timestamp":…,"records":[{"data":…}]}
// apart: the records lie decoded, one behind the other, in data, which takes the
// place of the body, and ends says where each ends. What is not base64 is handed
// on as it stands, so that one such record costs no other.
func Decode(body []byte) (data []byte, ends []int, err error) {
	d := decoder{Decoder: json.NewDecoder(bytes.NewReader(body)), body: body}
	found := false
	err = d.object(func(key string) error {
		if key != "records" {
			return d.Decode(&d.raw)
		}
		found = true
		return d.records()
	})
	switch {
	case err != nil:
		return nil, nil, fmt.Errorf("the body is no Firehose delivery: %w", err)
	case !found:
		return nil, nil, errors.New(`the body is no Firehose delivery: it has no "records"`)
	}
	return body[:d.to], d.ends, nil
}

// decoder reads the body and writes what it decoded over what it has read: less
// comes out than goes in, and the reader is always ahead.
type decoder struct {
	*json.Decoder
	body []byte
	to   int
	ends []int
	raw  json.RawMessage
}

// object reads an object, calling f at each of its values.
func (d *decoder) object(f func(key string) error) error {
	if err := d.open('{'); err != nil {
		return err
	}
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return err
		}
		name, _ := key.(string) // it is one: the decoder holds keys to it
		if err := f(name); err != nil {
			return err
		}
	}
	_, err := d.Token()
	return err
}

func (d *decoder) open(delim json.Delim) error {
	t, err := d.Token()
	if err != nil {
		return err
	}
	if t != delim {
		return fmt.Errorf("%s expected at byte %d", delim, d.InputOffset())
	}
	return nil
}

func (d *decoder) records() error {
	if err := d.open('['); err != nil {
		return err
	}
	for d.More() {
		err := d.object(func(key string) error {
			if err := d.Decode(&d.raw); err != nil || key != "data" {
				return err
			}
			d.keep()
			return nil
		})
		if err != nil {
			return err
		}
	}
	_, err := d.Token()
	return err
}

// keep decodes the value in d.raw behind what was kept before.
func (d *decoder) keep() {
	text := []byte(d.raw)
	if len(text) >= 2 && text[0] == '"' {
		text = text[1 : len(text)-1]
		if bytes.IndexByte(text, '\\') >= 0 {
			var s string
			// Broken UTF-8 may come out longer; then the text stays as it is.
			if json.Unmarshal(d.raw, &s) == nil && len(s) <= len(text) {
				text = []byte(s)
			}
		}
		// Decode wants room for padding, too; there is: the text itself lies there.
		if n, err := base64.StdEncoding.Decode(d.body[d.to:], text); err == nil {
			d.to += n
			d.ends = append(d.ends, d.to)
			return
		}
	}
	d.to += copy(d.body[d.to:], text)
	d.ends = append(d.ends, d.to)
}

// maxMessage bounds an error message in bytes; the contract allows 8,192.
const maxMessage = 1 << 10

// AppendAnswer appends the body of an answer, ms being the time of day in ms
// UTC; message is empty where all is well.
func AppendAnswer(b []byte, id string, ms int64, message string) []byte {
	b = append(b, `{"requestId":`...)
	b = appendString(b, id)
	b = append(b, `,"timestamp":`...)
	b = strconv.AppendInt(b, ms, 10)
	if message != "" {
		b = append(b, `,"errorMessage":`...)
		b = appendString(b, message[:min(len(message), maxMessage)])
	}
	return append(b, '}')
}

func appendString(b []byte, s string) []byte {
	q, _ := json.Marshal(s) // of a string: it does not fail
	return append(b, q...)
}
