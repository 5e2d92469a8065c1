//go:build failpoint

package failpoint

import (
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
)

// chosen is DATASYNC_FAILPOINT: a point, a colon, and at which passing to die.
var chosen, nth = func() (Point, int64) {
	name, text, _ := strings.Cut(os.Getenv("DATASYNC_FAILPOINT"), ":")
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil && name != "" {
		panic("DATASYNC_FAILPOINT: want POINT:NUMBER: " + err.Error())
	}
	return Point(name), n
}()

var passed atomic.Int64

// At ends the process, as kill -9 does, at the chosen passing of the chosen point.
func At(p Point) {
	if p != chosen || passed.Add(1) != nth {
		return
	}
	if err := syscall.Kill(os.Getpid(), syscall.SIGKILL); err != nil {
		panic(err)
	}
	select {} // no further step
}
