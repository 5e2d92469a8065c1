package dir

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
)

// noted are folders whose syncs are written down.
type noted struct {
	*Folders
	mu     sync.Mutex
	synced []string
	fail   error
}

func note() *noted {
	n := &noted{Folders: NewFolders("abc123")}
	n.syncDir = func(dir string) error {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.synced = append(n.synced, dir)
		return errors.Join(n.fail, syncDir(dir))
	}
	return n
}

// since are the folders that were synced since the last call, sorted.
func (n *noted) since() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	out := n.synced
	n.synced = nil
	slices.Sort(out)
	return out
}

// above are dir and every folder above it, sorted.
func above(dir string) []string {
	out := []string{dir}
	for ; dir != "/"; dir = filepath.Dir(dir) {
		out = append(out, filepath.Dir(dir))
	}
	slices.Sort(out)
	return out
}

func TestEveryFolderAboveADropIsSyncedOnce(t *testing.T) {
	n := note()
	root := filepath.Join(t.TempDir(), "not/there/yet")
	s := n.Sink(root)
	store := func(s *Sink, key string, want ...string) {
		t.Helper()
		put(t, s, drop(key, "mine"))
		slices.Sort(want)
		if got := n.since(); !slices.Equal(got, want) {
			t.Errorf("%s: synced\n%s\nnot\n%s", key, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
	at := func(dir string) string { return filepath.Join(root, dir) }
	store(s, "t=a/d=1/h=0/1", above(at("t=a/d=1/h=0"))...)
	store(s, "t=a/d=1/h=0/2", at("t=a/d=1/h=0"))
	store(s, "t=a/d=1/h=1/3", at("t=a/d=1/h=1"), at("t=a/d=1"))
	store(s, "t=a/d=1/h=0/4", at("t=a/d=1/h=0")) // another shard's, a little late
	store(s, "t=a/d=2/h=0/5", at("t=a/d=2/h=0"), at("t=a/d=2"), at("t=a"))
	store(n.Sink(root), "t=b/d=1/h=0/1", at("t=b/d=1/h=0"), at("t=b/d=1"), at("t=b"), root)
	if err := os.RemoveAll(at("t=a")); err != nil {
		t.Fatal(err)
	}
	store(s, "t=a/d=2/h=0/6", above(at("t=a/d=2/h=0"))...)
}

func TestAFolderWhoseSyncFailsIsNotTakenForDurable(t *testing.T) {
	n := note()
	s := n.Sink(t.TempDir())
	n.fail = syscall.EIO
	if err := s.Put(context.Background(), drop(key, "mine")); !errors.Is(err, syscall.EIO) {
		t.Errorf("stored, though nothing was synced: %v", err)
	}
	n.fail = nil
	n.since()
	put(t, s, drop(key, "mine"))
	if got, want := n.since(), above(filepath.Dir(filepath.Join(s.root, key))); !slices.Equal(got, want) {
		t.Errorf("synced %v, not %v", got, want)
	}
}

// A folder that is removed and made anew while a drop is on its way into it is
// not the one that was durable.
func TestAFolderMadeAnewMeanwhileIsSyncedByBoth(t *testing.T) {
	n := note()
	s := n.Sink(t.TempDir())
	put(t, s, drop(key, "mine"))
	n.since()
	second := strings.Replace(key, "0001.", "0002.", 1)
	d := drop(second, "mine too")
	leaf := filepath.Dir(filepath.Join(s.root, key))
	unnamed, once := n.unnamed, false
	n.unnamed = func(dir string) (*object, error) {
		if !once {
			once = true
			if err := errors.Join(os.RemoveAll(filepath.Join(s.root, "tenant=acme")), os.MkdirAll(leaf, 0o755)); err != nil {
				t.Error(err)
			}
			s.forget() // as the other drop, which found it gone
		}
		return unnamed(dir)
	}
	put(t, s, d)
	for _, dir := range above(leaf) {
		if !slices.Contains(n.synced, dir) {
			t.Errorf("%s is not synced", dir)
		}
	}
}

func TestSyncsOfOneFolderAreShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := NewFolders("abc123")
		begun, end := 0, make(chan error)
		f.syncDir = func(string) error { begun++; return <-end }
		results := make(chan error, 20)
		for range 20 {
			go func() { results <- f.sync("/a") }()
			synctest.Wait() // the first is under way, the others come one by one
		}
		if begun != 1 {
			t.Fatalf("%d syncs at a time", begun)
		}
		end <- nil
		synctest.Wait()
		if begun != 2 || len(results) != 1 || <-results != nil {
			t.Fatalf("%d syncs begun, %d callers answered: the first sync may have begun too early for the others", begun, len(results))
		}
		go func() { results <- f.sync("/a") }()
		synctest.Wait()
		end <- syscall.EIO
		for range 19 {
			if err := <-results; !errors.Is(err, syscall.EIO) {
				t.Errorf("the sync that all shared failed, one was told %v", err)
			}
		}
		end <- nil
		if err := <-results; err != nil || begun != 3 || len(f.syncs) != 0 {
			t.Errorf("%v after %d syncs, %d left", err, begun, len(f.syncs))
		}
	})
}

func TestDropsByATemporaryNameWhereThereIsNoOtherWay(t *testing.T) {
	for name, unnamed := range map[string]func(string) (*object, error){
		"no files without a name": func(string) (*object, error) { return nil, errUnnamed },
		"none that can get one here": func(string) (*object, error) {
			f, err := os.CreateTemp(t.TempDir(), "")
			if err != nil {
				return nil, err
			}
			return &object{File: f}, os.Remove(f.Name()) // such a file never gets a name again
		},
	} {
		t.Run(name, func(t *testing.T) {
			n := note()
			n.unnamed = unnamed
			s := n.Sink(filepath.Join(t.TempDir(), "out"))
			for range 2 {
				put(t, s, drop(key, "mine"))
			}
			info, err := os.Stat(filepath.Join(s.root, key))
			if got := objects(t, s.root); len(got) != 1 || got[key] != "mine" || err != nil || info.Mode().Perm() != 0o644 {
				t.Errorf("stored: %v, %v", got, err)
			}
			e := refusal(t, s.Put(context.Background(), drop(key, "another's")))
			if left, err := os.ReadDir(filepath.Join(s.root, tmp)); e.Hint == "" || err != nil || len(left) > 0 {
				t.Errorf("%v, left: %v, %v", e, left, err)
			}
			if err := os.RemoveAll(s.root); err != nil {
				t.Fatal(err)
			}
			put(t, s, drop(key, "mine"))
			if got := fmt.Sprint(objects(t, s.root)); got != fmt.Sprint(map[string]string{key: "mine"}) {
				t.Errorf("after the folder was removed: %s", got)
			}
		})
	}
}
