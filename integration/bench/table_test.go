package bench

import (
	"fmt"
	"io"
	"strings"
)

// row is one line of the table.
type row struct {
	name             string
	job              job
	cost             cost
	missing, repeats int
}

// reference is what calibrate found on the machine on which the limits were
// measured, ms: "scaled" is the processor time of an event there, in µs.
const reference = 0.95

// head names the columns.
var head = []string{"path", "events", "events/s", "CPU s per million", "scaled", "allocations/event", "peak MB", "written", "missing", "repeated"}

func (r *row) cells() []string {
	events := r.job.events - r.job.source.done
	n := float64(events)
	written := r.job.sink.unit
	if r.cost.written > 0 {
		written = fmt.Sprintf("%d %s", r.cost.written, r.job.sink.unit)
	}
	return []string{r.name, fmt.Sprint(events), fmt.Sprintf("%.0f", n/r.cost.took.Seconds()), fmt.Sprintf("%.1f", r.cost.cpu.Seconds()*1e6/n),
		fmt.Sprintf("%.1f", r.cost.cpu.Seconds()*1e6/n*reference/r.cost.sum), fmt.Sprintf("%.2f", r.cost.allocs/n), fmt.Sprint(r.cost.peak >> 20), written, fmt.Sprint(r.missing), fmt.Sprint(r.repeats)}
}

// write writes the conditions and the table as Markdown that is read as it is, too.
func write(w io.Writer, conditions []string, rows []row) {
	table := [][]string{head}
	for _, r := range rows {
		table = append(table, r.cells())
	}
	width := make([]int, len(head))
	for _, cells := range table {
		for i, c := range cells {
			width[i] = max(width[i], len([]rune(c)))
		}
	}
	var b strings.Builder
	for _, c := range conditions {
		fmt.Fprintf(&b, "- %s\n", c)
	}
	b.WriteByte('\n')
	for at, cells := range table {
		for i, c := range cells {
			pad := strings.Repeat(" ", width[i]-len([]rune(c)))
			if i > 0 {
				c, pad = pad, c // figures stand to the right
			}
			fmt.Fprintf(&b, "| %s%s ", c, pad)
		}
		b.WriteString("|\n")
		if at > 0 {
			continue
		}
		for i, n := range width {
			rule := strings.Repeat("-", n+1) + ":"
			if i == 0 {
				rule = strings.Repeat("-", n+2)
			}
			b.WriteString("|" + rule)
		}
		b.WriteString("|\n")
	}
	_, _ = io.WriteString(w, b.String()) // standard output
}
