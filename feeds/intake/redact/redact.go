// Package redact masks secrets in events before anything is written.
package redact

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
	"strings"
)

// Mask stands where a secret stood.
const Mask = "[redacted]"

// Bounds of own patterns.
const (
	MaxPatterns = 32
	MaxPattern  = 512
)

// Spec is what a tenant's file says about redaction (contract.md, "redact").
// The zero Spec is all built-in groups and nothing else.
type Spec struct {
	// Builtin names the built-in groups in force; nil is all four:
	// credentials, tokens, card_numbers, ssn. Empty but not nil is none.
	Builtin []string
	// QueryParams are parameters whose values are masked in query strings and
	// form-encoded text, compared without case.
	QueryParams []string
	// Fields are canonical fields, or dotted paths below them
	// ("meta.unmapped.note"), that are masked whole: text becomes Mask,
	// anything else null. A required field is an error.
	Fields []string
	// Patterns are RE2 expressions; what they match in free text is masked.
	// At most MaxPatterns, each of at most MaxPattern bytes.
	Patterns []string
}

// Rules are a compiled Spec, safe for concurrent use. A nil *Rules is the zero
// Spec: all built-in groups.
type Rules struct {
	groups   groupSet
	params   map[string]bool
	fields   map[string]bool
	patterns []*regexp.Regexp
}

var builtin = &Rules{groups: allGroups}

// required are the fields without which an event is none: masking one would
// send the tenant's events to the quarantine.
var required = []string{"schema", "event_id", "tenant_id", "source", "kind", "event_time",
	"time_precision", "ingest_time", "action", "disposition", "enforced", "severity", "meta"}

// Compile checks a Spec; all its mistakes come back joined.
func Compile(s Spec) (*Rules, error) {
	r := &Rules{groups: allGroups}
	var errs []error
	if s.Builtin != nil {
		r.groups = 0
		for _, name := range s.Builtin {
			g, ok := parseGroup(name)
			if !ok {
				errs = append(errs, fmt.Errorf("builtin: %q is none of credentials, tokens, card_numbers, ssn", name))
				continue
			}
			r.groups |= 1 << g
		}
	}
	if len(s.QueryParams) > 0 {
		r.params = make(map[string]bool, len(s.QueryParams))
	}
	for _, p := range s.QueryParams {
		if p == "" || len(p) > maxName || strings.ContainsAny(p, "=&?# ") {
			errs = append(errs, fmt.Errorf("query_params: %q is no parameter name (1 to %d bytes, none of =&?# or space)", p, maxName))
			continue
		}
		r.params[strings.ToLower(p)] = true
	}
	errs = append(errs, r.compileFields(s.Fields)...)
	errs = append(errs, r.compilePatterns(s.Patterns)...)
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return r, nil
}

func (r *Rules) compileFields(fields []string) (errs []error) {
	if len(fields) > 0 {
		r.fields = make(map[string]bool, len(fields))
	}
	for _, f := range fields {
		if f == "" || strings.ContainsAny(f, "\"\\") {
			errs = append(errs, fmt.Errorf("fields: %q is no field name", f))
			continue
		}
		for _, q := range required {
			if f == q {
				errs = append(errs, fmt.Errorf("fields: %q cannot be masked, an event needs it", f))
			}
		}
		r.fields[f] = true
	}
	return errs
}

func (r *Rules) compilePatterns(patterns []string) (errs []error) {
	if len(patterns) > MaxPatterns {
		return []error{fmt.Errorf("patterns: %d of them, at most %d are allowed", len(patterns), MaxPatterns)}
	}
	for _, p := range patterns {
		if len(p) > MaxPattern {
			errs = append(errs, fmt.Errorf("patterns: %.40q… has %d bytes, at most %d are allowed", p, len(p), MaxPattern))
			continue
		}
		re, err := regexp.Compile(p)
		var se *syntax.Error
		switch {
		case errors.As(err, &se):
			errs = append(errs, fmt.Errorf("patterns: %q is no RE2 expression: %w", p, err))
		case re.MatchString(""):
			errs = append(errs, fmt.Errorf("patterns: %q matches empty text", p))
		default:
			r.patterns = append(r.patterns, re)
		}
	}
	return errs
}

// Always says that an event has to be looked at even where the scanner saw
// nothing of the built-in kinds: the tenant has rules of its own.
func (r *Rules) Always() bool {
	return r != nil && (len(r.params) > 0 || len(r.fields) > 0 || len(r.patterns) > 0)
}

// Line appends the canonical event in line, its secrets masked and named in
// meta.redactions, to dst. Bytes that are no secret are copied as they are.
// Where nothing was found it returns dst as it was, and false. line is one
// valid JSON object; dst may not overlap it.
func (r *Rules) Line(dst, line []byte) ([]byte, bool) {
	s := getScratch()
	defer putScratch(s)
	s.begin(r, line)
	s.walk(true)
	if len(s.edits) == 0 {
		return dst, false
	}
	return s.applyLine(dst), true
}

// Record appends bytes as a source sent them, their secrets masked, to dst,
// and says what kinds were found: for the quarantine. JSON is masked value by
// value, anything else as text.
func (r *Rules) Record(dst, raw []byte) (out []byte, found []string) {
	s := getScratch()
	defer putScratch(s)
	s.begin(r, raw)
	trimmed := bytes.TrimSpace(raw)
	if len(trimmed) == 0 || (trimmed[0] != '{' && trimmed[0] != '[') || !jsonValid(raw) || !s.walk(false) {
		s.begin(r, raw)
		s.broken = true
		s.text(0, len(raw), false)
		s.payloads()
	}
	out = s.apply(dst)
	for _, n := range s.names {
		found = append(found, string(n))
	}
	return out, found
}
