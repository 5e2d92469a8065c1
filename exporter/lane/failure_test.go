package lane

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"datasync/feeds"
)

// What goes wrong on our own disk is not told as the receiver's fault.
func TestOurOwnDiskIsNamed(t *testing.T) {
	for _, c := range []struct {
		err   error
		class Class
		hint  string
	}{
		{fmt.Errorf("spool: %w", syscall.ENOSPC), Full, "make room on the disk that holds data_dir"},
		{fmt.Errorf("record drop: %w", feeds.ErrFull), Full, "make room on the disk that holds data_dir"},
		{fmt.Errorf("record drop: %w", feeds.ErrStopped), Reset, "mend the disk that holds data_dir and restart"},
		{context.DeadlineExceeded, Timeout, ""},
		{errors.New("connection reset"), Reset, ""},
	} {
		e := failure(c.err)
		if e.Verdict != Away || e.Class != c.class || !strings.Contains(e.Error(), c.hint) || !errors.Is(e, c.err) {
			t.Errorf("%v: %s, %v", c.err, e.Class, e)
		}
	}
}
