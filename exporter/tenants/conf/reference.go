package conf

import (
	"fmt"
	"os"
	"strings"
)

// Refs says where the values of references come from. The zero value is the
// process's environment and file system.
type Refs struct {
	Env      func(name string) (string, bool)
	ReadFile func(path string) ([]byte, error)
	// Files, where not nil, is told the path of each file read.
	Files func(path string)
}

// maxReference is how large a referenced file may be.
const maxReference = 64 << 10

// HasReference says whether s holds ${…}.
func HasReference(s string) bool { return strings.Contains(s, "${") }

// IsReference says whether s is one reference and nothing else.
func IsReference(s string) bool {
	return (strings.HasPrefix(s, "${env:") || strings.HasPrefix(s, "${file:")) &&
		strings.IndexByte(s, '}') == len(s)-1
}

// resolve replaces ${env:NAME} and ${file:PATH} by what they stand for; $${
// is a literal ${. No error holds a value.
func (r *Refs) resolve(s string) (string, error) {
	var b strings.Builder
	for {
		i := strings.Index(s, "${")
		if i < 0 {
			b.WriteString(s)
			return b.String(), nil
		}
		if i > 0 && s[i-1] == '$' {
			b.WriteString(s[:i-1] + "${")
			s = s[i+2:]
			continue
		}
		b.WriteString(s[:i])
		s = s[i+2:]
		end := strings.IndexByte(s, '}')
		if end < 0 {
			return "", fmt.Errorf("a reference is not closed; write ${env:NAME} or ${file:PATH}")
		}
		value, err := r.lookup(s[:end])
		if err != nil {
			return "", err
		}
		b.WriteString(value)
		s = s[end+1:]
	}
}

func (r *Refs) lookup(ref string) (string, error) {
	scheme, name, ok := strings.Cut(ref, ":")
	switch {
	case ok && name == "":
		return "", fmt.Errorf("${%s} names nothing; write ${env:NAME} or ${file:PATH}", ref)
	case ok && scheme == "env":
		return r.env(name)
	case ok && scheme == "file":
		return r.file(name)
	}
	return "", fmt.Errorf("${%s} is no reference; write ${env:NAME} or ${file:PATH}, or $${ for a literal ${", ref)
}

func (r *Refs) env(name string) (string, error) {
	get := r.Env
	if get == nil {
		get = os.LookupEnv
	}
	value, ok := get(name)
	if !ok {
		return "", fmt.Errorf("environment variable %s is not set", name)
	}
	return value, nil
}

func (r *Refs) file(path string) (string, error) {
	if r.Files != nil {
		r.Files(path)
	}
	read := r.ReadFile
	if read == nil {
		read = os.ReadFile
	}
	b, err := read(path)
	if err != nil {
		return "", fmt.Errorf("cannot read the referenced file: %v", err)
	}
	if len(b) > maxReference {
		return "", fmt.Errorf("the referenced file %s is larger than 64KiB", path)
	}
	return strings.TrimRight(string(b), "\r\n"), nil
}
