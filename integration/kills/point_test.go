package kills

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"datasync/integration/harness"
)

// mortal builds the program that dies at a point, and gives the points' names.
func mortal(t *testing.T) (program string, points []string) {
	t.Helper()
	program = filepath.Join(t.TempDir(), "datasync")
	cmd := exec.Command("go", "build", "-tags", "failpoint", "-o", program, "./cmd/datasync")
	cmd.Dir = "../.."
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build with failpoints: %v\n%s", err, out)
	}
	source, err := os.ReadFile("../../failpoint/points.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`(?m)^\t\w+ +Point = "(.*)"$`).FindAllSubmatch(source, -1) {
		points = append(points, string(m[1]))
	}
	return program, points
}

// TestFaultPoints: the program dies at each point between two durable steps, at
// its first passing and at the next, as long as one life passes it.
func TestFaultPoints(t *testing.T) {
	b := newBed(t)
	program, points := mortal(t)
	for _, point := range points {
		for n := 1; n <= 3 && b.dieAt(program, point, n); n++ {
			b.died[point]++
		}
		if b.died[point] == 0 {
			t.Errorf("no life passes %q", point)
		}
	}
	repeats := b.settle()
	t.Logf("killed at %d points; %d events acknowledged, lost 0, repeats in drops 0, at the receiver %d; killed at%s",
		len(points), len(b.ledger.acked), repeats, b.table())
}

// dieAt is a life that dies at the n-th passing of a point; false: it came to
// its end before.
func (b *bed) dieAt(program, point string, n int) bool {
	b.t.Helper()
	l := b.life()
	cmd := exec.Command(program, "run", "--config", filepath.Join(l.Dir, "datasync.yaml"))
	cmd.Env = append(os.Environ(), fmt.Sprintf("DATASYNC_FAILPOINT=%s:%d", point, n))
	p := harness.Launch(b.t, "datasync with failpoints", cmd)
	l.whole(p)
	code := p.Wait(time.Minute)
	if code > 0 {
		b.t.Errorf("%s, passing %d: the program ended with %d", point, n, code)
	}
	p.Forget()
	l.again()
	return code < 0
}
