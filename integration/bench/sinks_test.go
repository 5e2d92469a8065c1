package bench

import (
	"bytes"
	"fmt"
	"io/fs"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"datasync/exporter/kinesis/kinesistest"
	"datasync/integration/harness"
	"datasync/integration/readers"
	"datasync/integration/servers"
)

// sink is where a path ends.
type sink struct {
	yaml string // of every tenant's sinks, {dir} and {tenant} as in harness.Service
	unit string // of what is written there
	once bool   // nothing may be there twice
	door door   // where lines go over TLS, for programs that are not ours
	// count gives how much was written and the ids of its events.
	count func(*testing.T, *harness.Service) (written int, ids harness.IDs)
}

// limits of drops: by size; what is below it is cut when all has been read.
const limits = "    deliver: {max_bytes: 8MiB, max_age: 1h}\n"

// journal is no sink at all. What is in the log is read by one that comes later.
func journal(_ *testing.T, b *bed) sink {
	return sink{yaml: "  []\n", unit: "–", once: true, count: func(t *testing.T, s *harness.Service) (int, harness.IDs) {
		was, ok := s.Ledger()
		if !ok {
			t.Fatal("no ledger")
		}
		s.Tenants(b.tenants, "  - name: later\n    dir: {path: \"{dir}/drops\"}\n    compression: none\n    start: oldest\n    deliver: {max_age: 1s}\n")
		harness.Until(t, 5*time.Minute, "delivery of what is in the journal", func() bool {
			l, ok := s.Ledger()
			var delivered int64
			for _, k := range l.Sinks {
				delivered += k.Delivered
			}
			return ok && delivered >= was.Feeds[0].Accepted
		})
		return 0, harness.Drops(t, filepath.Join(s.Dir, "drops"), "later")
	}}
}

// folder is drops in a folder.
func folder(format, compression string) func(*testing.T, *bed) sink {
	return func(*testing.T, *bed) sink {
		return sink{
			yaml: fmt.Sprintf("  - name: s\n    dir: {path: \"{dir}/drops\"}\n    format: %s\n    compression: %s\n%s", format, compression, limits),
			unit: "objects", once: true,
			count: func(t *testing.T, s *harness.Service) (int, harness.IDs) {
				return drops(t, filepath.Join(s.Dir, "drops"), format)
			},
		}
	}
}

// bucket is drops in a bucket of versitygw, over https.
func bucket(format, compression string) func(*testing.T, *bed) sink {
	return func(t *testing.T, b *bed) sink {
		certs := servers.NewCerts(t)
		t.Setenv("AWS_CA_BUNDLE", certs.CA)
		store := servers.NewTLSStore(t, certs, "lake")
		return sink{
			yaml: fmt.Sprintf("  - name: s\n    s3: {bucket: lake, region: us-east-1, endpoint: %q, path_style: true}\n    format: %s\n    compression: %s\n%s",
				store.URL(), format, compression, limits),
			unit: "objects", once: true,
			count: func(t *testing.T, _ *harness.Service) (int, harness.IDs) {
				return drops(t, filepath.Join(store.Root, "lake"), format)
			},
		}
	}
}

// drops counts the objects below dir and reads the ids in them.
func drops(t *testing.T, dir, format string) (objects int, ids harness.IDs) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && strings.Contains(path, "/sink=s/") {
			objects++
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	ids = harness.Drops(t, dir, "s") // its numbers, and ids where it is NDJSON
	if format == "parquet" {
		ids = readers.IDs(t, dir, "s")
	}
	return objects, ids
}

// stream is a stream of our own fake, in this process: kinesalite takes a
// fraction of what the service sends, which would measure the waiting.
func stream(aggregate bool) func(*testing.T, *bed) sink {
	return func(t *testing.T, _ *bed) sink {
		to, records, ids := kinesistest.NewStream("bench", 4, 1), 0, harness.IDs{}
		to.Stored = func(r kinesistest.Record) {
			records++
			for rest := r.Data; ; { // an aggregated record holds its events as they are
				var id []byte
				var ok bool
				_, rest, _ = bytes.Cut(rest, []byte(`"event_id":"`))
				if id, rest, ok = bytes.Cut(rest, []byte(`"`)); !ok {
					return
				}
				ids[string(id)]++
			}
		}
		server := httptest.NewServer(to)
		t.Cleanup(server.Close)
		return sink{
			yaml: fmt.Sprintf("  - name: s\n    kinesis: {stream: bench, region: eu-west-1, endpoint: %q, partition_key: client_ip, aggregate: %v}\n", server.URL, aggregate),
			unit: "records",
			count: func(*testing.T, *harness.Service) (int, harness.IDs) {
				to.Lock()
				defer to.Unlock()
				return records, ids
			},
		}
	}
}

// lines is TLS to our own receiver, which costs less than others do and leaves
// the machine to what is measured.
func lines(t *testing.T, _ *bed) sink {
	certs, addr := servers.NewCerts(t), harness.FreePort(t)
	out := filepath.Join(t.TempDir(), "lines")
	harness.Start(t, "datasync receive", "receive", "--listen", addr, "--cert", certs.Cert, "--key", certs.Key, "--out", out)
	return sink{
		yaml: fmt.Sprintf("  - name: s\n    emitter: {address: %q, tls: {ca: %q}, rotate_every: 1s}\n", addr, certs.CA),
		door: door{addr, certs.CA, out},
		unit: "lines",
		count: func(t *testing.T, _ *harness.Service) (int, harness.IDs) {
			ids, n := harness.IDs{}, 0
			ids.AddLines(t, out)
			for _, k := range ids {
				n += k
			}
			return n, ids
		},
	}
}

// together gives every tenant the sinks of several paths, the first one of drops.
// An event counts as there once it is at the end of each.
func together(paths ...func(*testing.T, *bed) sink) func(*testing.T, *bed) sink {
	return func(t *testing.T, b *bed) sink {
		t.Helper()
		var all []sink
		var yaml strings.Builder
		for i, to := range paths {
			s := to(t, b)
			if i > 0 {
				s.yaml = strings.Replace(s.yaml, "name: s\n", fmt.Sprintf("name: s%d\n", i+1), 1)
			}
			yaml.WriteString(s.yaml)
			all = append(all, s)
		}
		return sink{yaml: yaml.String(), unit: all[0].unit, once: all[0].once, count: func(t *testing.T, s *harness.Service) (int, harness.IDs) {
			written, ids := all[0].count(t, s)
			for _, other := range all[1:] {
				_, there := other.count(t, s)
				for id := range ids {
					if there[id] == 0 {
						delete(ids, id)
					}
				}
			}
			return written, ids
		}}
	}
}

// door is an address that takes lines over TLS, who vouches for it, and the
// file that they end in.
type door struct{ addr, ca, out string }

func (d door) port() string { return d.addr[strings.LastIndexByte(d.addr, ':')+1:] }

// lines is how many have arrived.
func (d door) lines(t *testing.T) int {
	t.Helper()
	n := 0
	harness.EachLine(t, d.out, func([]byte) { n++ })
	return n
}
