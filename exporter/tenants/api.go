package tenants

import (
	"context"
	"errors"
	"io"
	"time"

	"datasync/exporter/tenants/conf"
)

type Problem = conf.Problem
type Problems = conf.Problems

func Load(path string) (*Service, error)           { return nil, errors.ErrUnsupported }
func LoadTenants(dir string) (*Set, Problems)      { return NewSet(), nil }
func Validate(path string) (*Service, *Set, error) { return nil, nil, errors.ErrUnsupported }

func CompileSchedule(spec, timezone string) (Schedule, error) { return nil, errors.ErrUnsupported }

// Change is what a Watcher tells.
type Change struct {
	Old, New *Set
	Problems Problems
}

type WatchOptions struct{ Poll, Settle time.Duration }
type Watcher struct{}

func NewWatcher(dir string, onChange func(Change), o WatchOptions) (*Watcher, error) {
	return nil, errors.ErrUnsupported
}
func (w *Watcher) Set() *Set                     { return nil }
func (w *Watcher) Run(ctx context.Context) error { return nil }
func (w *Watcher) Reload() Problems              { return nil }
func (t *Tenant) Public() any                    { return nil }
func ServiceSchema() []byte                      { return nil }
func TenantSchema() []byte                       { return nil }
func Reference(w io.Writer) error                { return nil }
