package tenants

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"datasync/exporter/tenants/conf"
	"datasync/feeds"
)

// maxFile is the largest tenant or channel file, in bytes.
const maxFile = 1 << 20

// LoadTenants reads and checks a folder of tenants' files, each laid over its
// channel's. A bad file yields problems of its own; the others load.
func LoadTenants(dir string) (*Set, Problems) {
	b := newBook(dir)
	return b.read(true)
}

// Reference writes the reference page of both files in Markdown.
func Reference(w io.Writer) error {
	const head = "# Configuration\n\nGenerated from the table that checks the files; `go test ./exporter/tenants -update` writes it anew.\n\n" +
		"Sizes are written as `10MiB`, `50GiB`, `1GB`; durations as `10s`, `5m`, `24h`, `7d`. " +
		"In any value `${env:NAME}` stands for an environment variable and `${file:PATH}` for what a file holds; `$${` is a literal `${`. " +
		"Names match `[a-z0-9][a-z0-9_-]{0,62}`. Unknown keys are errors.\n\n"
	if _, err := io.WriteString(w, head); err != nil {
		return err
	}
	return conf.Markdown(w, serviceKeys, tenantKeys)
}

// book is what is known of a folder between two readings: per file its last
// good settings. It belongs to one goroutine at a time.
type book struct {
	dir      string
	tenants  map[string]*entry // by path
	channels map[string]*entry // by name
	set      *Set
}

func newBook(dir string) *book {
	return &book{dir: dir, tenants: map[string]*entry{}, channels: map[string]*entry{}, set: NewSet()}
}

// entry is one file.
type entry struct {
	path string
	seen stamp
	refs map[string]stamp // files that it refers to

	good     *Tenant // last good settings; nil: none yet
	next     *Tenant // what this reading found, until it is accepted
	channel  string
	value    *conf.Value // of a channel, nil where it is bad
	changed  bool        // this reading found something else
	problems Problems
}

// stamp tells that a file is likely the same.
type stamp struct {
	size  int64
	mtime time.Time
	// fresh: it was written so shortly before the reading that a second write
	// might show the same time.
	fresh bool
}

func stampOf(path string) stamp {
	st, err := os.Stat(path)
	if err != nil {
		return stamp{size: -1}
	}
	return stamp{size: st.Size(), mtime: st.ModTime(), fresh: time.Since(st.ModTime()) < 2*time.Second}
}

func (s stamp) same(now stamp) bool {
	return !s.fresh && s.size == now.size && s.mtime.Equal(now.mtime)
}

// read looks at the folder again. With all, every file is read; else those
// that changed, that were bad, or that refer to something that changed. The
// set is the one before where nothing changed.
func (b *book) read(all bool) (*Set, Problems) {
	files, err := list(b.dir)
	if err != nil {
		return b.set, unreadable(b.dir, err)
	}
	channels, err := list(filepath.Join(b.dir, "channels"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return b.set, Problems{{File: filepath.Join(b.dir, "channels"), Message: "cannot read the channels' folder: " + reason(err)}}
	}
	l := newLoader(conf.Refs{})
	l.remember(b.set)
	b.readChannels(l, channels, all)
	known := make(map[string]*entry, len(files))
	for _, path := range files {
		e := b.tenants[path]
		if e == nil {
			e = &entry{path: path}
		}
		known[path] = e
		b.readTenant(l, e, all)
	}
	removed := len(known) < len(b.tenants) || slices.ContainsFunc(slices.Collect(maps.Keys(b.tenants)), func(p string) bool { return known[p] == nil })
	b.tenants = known
	ps := b.accept(removed)
	for _, m := range []map[string]*entry{b.tenants, b.channels} {
		for _, e := range m {
			ps = append(ps, e.problems...)
		}
	}
	return b.set, ps.Sorted()
}

func unreadable(dir string, err error) Problems {
	return Problems{{File: dir, Message: "cannot read the tenants' folder: " + reason(err) + "; make it, or set tenants to the right one"}}
}

// remember takes the compiled parts of a set over.
func (l *loader) remember(set *Set) {
	for _, t := range set.All() {
		for _, s := range t.Sinks {
			if s.Filter != nil {
				l.filters[s.Output.Filter] = s.Filter
			}
			if s.Deliver.Schedule != nil {
				l.schedules[[2]string{s.Deliver.Cron, s.Deliver.Timezone}] = s.Deliver.Schedule
			}
		}
	}
}

// list is the YAML files of a folder, by name.
func list(dir string) ([]string, error) {
	all, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, d := range all {
		ext := filepath.Ext(d.Name())
		if d.IsDir() || strings.HasPrefix(d.Name(), ".") || ext != ".yaml" && ext != ".yml" {
			continue
		}
		out = append(out, filepath.Join(dir, d.Name()))
	}
	return out, nil
}

// parse reads the entry's file where it may have changed. data is nil where it
// did not.
func (e *entry) parse(o *conf.Object, all bool) (v *conf.Value, data []byte) {
	now := stampOf(e.path)
	same := len(e.problems) == 0 && !all
	for path, was := range e.refs {
		same = same && was.same(stampOf(path))
	}
	if same && e.seen.same(now) {
		return nil, nil
	}
	data, err := readFile(e.path)
	if same && err == nil && e.good != nil && bytes.Equal(data, e.good.Raw) {
		e.seen = now // written shortly before the last reading, all 10,000 of them perhaps, or only touched
		return nil, nil
	}
	if err != nil {
		e.seen, e.problems, e.changed = stamp{}, Problems{{File: e.path, Message: "cannot read the file: " + reason(err)}}, true
		return nil, []byte{}
	}
	refs := map[string]stamp{}
	v, ps := conf.Parse(e.path, data, o, conf.Refs{Files: func(path string) { refs[path] = stampOf(path) }})
	e.seen, e.problems, e.refs, e.changed = now, ps, refs, true
	return v, data
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = errors.New("it is larger than 1MiB, too large to be settings")
	}
	return data, err
}

func (b *book) readChannels(l *loader, paths []string, all bool) {
	known := make(map[string]*entry, len(paths))
	for _, path := range paths {
		name := strings.TrimSuffix(filepath.Base(path), filepath.Ext(path))
		if other := known[name]; other != nil {
			other.problems = append(other.problems, Problem{File: path, Message: "channel " + name + " has two files; the other is " + other.path + "; remove one"})
			continue
		}
		e := b.channels[name]
		if e == nil || e.path != path {
			e = &entry{path: path}
		}
		e.changed = false
		known[name] = e
		v, data := e.parse(channelKeys, all)
		if data == nil {
			continue
		}
		if !feeds.ValidName(name) {
			e.problems = append(e.problems, Problem{File: path, Message: "the file's name is no channel name; use 1 to 63 of a-z, 0-9, _ and -"})
		}
		e.value = v
		if v == nil {
			continue
		}
		l.problems = nil
		l.sinksOnce(v)
		if e.problems = append(e.problems, l.problems...); len(e.problems) > 0 {
			e.value = nil
		}
	}
	b.channels = known
}

// readTenant reads one tenant's file, where it or its channel changed, and
// leaves what came of it in next and problems.
func (b *book) readTenant(l *loader, e *entry, all bool) {
	e.changed, e.next = false, nil
	ch := b.channels[e.channel]
	touched := e.channel != "" && (ch == nil || ch.changed)
	own, data := e.parse(tenantKeys, all || touched)
	if own == nil {
		return
	}
	e.channel = own.Str("channel")
	merged := own
	l.problems = nil
	l.sinksOnce(own)
	if e.channel != "" {
		ch = b.channels[e.channel]
		switch {
		case ch == nil:
			l.tell(own.At("channel"), "channel %q has no file; make %s", e.channel, filepath.Join(b.dir, "channels", e.channel+".yaml"))
			merged = nil
		case ch.value == nil:
			l.tell(own.At("channel"), "channel %q has mistakes in %s; mend them first", e.channel, ch.path)
			merged = nil
		default:
			merged = conf.Merge(ch.value, own)
		}
	}
	if merged == nil { // what the channel leaves out is no mistake of the tenant's
		e.problems = append(e.problems, l.problems...)
		return
	}
	l.problems = append(l.problems, merged.Complete()...)
	t := l.tenant(merged, own)
	if e.problems = append(e.problems, l.problems...); len(e.problems) > 0 {
		return
	}
	t.Raw, t.digest = bytes.Clone(data), merged.Digest()
	e.next = t
	if e.good == nil {
		return
	}
	t.keep(e.good)
	if e.good.digest == t.digest && bytes.Equal(e.good.Raw, t.Raw) {
		e.changed, e.next = false, nil
	}
}

// keep takes the sinks over that did not change.
func (t *Tenant) keep(old *Tenant) {
	if old.ID != t.ID {
		return
	}
	for i, s := range t.Sinks {
		for _, o := range old.Sinks {
			if o.Name == s.Name && o.Digest == s.Digest {
				t.Sinks[i] = o
			}
		}
	}
}

// accept lets the tenants in that do not meet on an id or a key, those that
// did not change first: a newcomer that meets one leaves its last good
// settings in force. It gives the problems of those refused.
func (b *book) accept(removed bool) Problems {
	paths := slices.Sorted(maps.Keys(b.tenants))
	refused := map[string]Problem{}
	var c *claims
	for again := true; again; {
		again = false
		c = newClaims()
		for _, changed := range []bool{false, true} {
			for _, path := range paths {
				e := b.tenants[path]
				_, no := refused[path]
				if useNext := e.next != nil && !no; useNext != changed {
					continue
				} else if useNext {
					if p, ok := c.add(e.next); !ok {
						refused[path], again = p, true
					}
				} else if e.good != nil {
					c.add(e.good)
				}
			}
		}
	}
	moved := removed
	for _, path := range paths {
		e := b.tenants[path]
		if _, no := refused[path]; no {
			e.seen = stamp{} // look again: the other file may give way
		} else if e.next != nil {
			e.good, moved = e.next, true
		}
		e.next = nil
	}
	if moved {
		b.set = NewSet(c.tenants...)
	}
	return slices.Collect(maps.Values(refused))
}

// claims are the ids and keys that are taken.
type claims struct {
	tenants []*Tenant
	ids     map[feeds.TenantID]*Tenant
	keys    map[Secret]*Tenant
}

func newClaims() *claims {
	return &claims{ids: map[feeds.TenantID]*Tenant{}, keys: map[Secret]*Tenant{}}
}

// add lets t in; else it says what t meets.
func (c *claims) add(t *Tenant) (Problem, bool) {
	if o := c.ids[t.ID]; o != nil {
		return t.idAt.Problem("tenant %q has a file already, %s; rename this one, or remove a file", t.ID, o.File), false
	}
	for i, k := range t.APIKeys {
		if o := c.keys[k]; o != nil {
			return t.keysAt.Problem("api key %d is also in %s; a key belongs to one tenant, so give one of them another", i+1, o.File), false
		}
	}
	c.ids[t.ID] = t
	for _, k := range t.APIKeys {
		c.keys[k] = t
	}
	c.tenants = append(c.tenants, t)
	return Problem{}, true
}
