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
	ours             *row // of the same job in the same round, where this is a peer's
}

// reference is what calibrate found on the machine on which the limits were
// measured, ms: "scaled" is the processor time of an event there, in µs.
const reference = 0.95

// head names the columns.
var head = []string{"path", "events", "events/s", "CPU s per million", "scaled", "allocations/event", "peak MB", "written", "missing", "repeated"}

// figure is a number of a row.
type figure struct {
	of     func(*row) float64
	format string
}

var figures = []figure{
	{func(r *row) float64 { return r.events() / r.cost.took.Seconds() }, "%.0f"},
	{cpu, "%.1f"},
	{func(r *row) float64 { return cpu(r) * reference / r.cost.sum }, "%.1f"},
	{func(r *row) float64 { return r.cost.allocs / r.events() }, "%.2f"},
	{func(r *row) float64 { return float64(r.cost.peak >> 20) }, "%.0f"},
}

// events are those that were measured.
func (r *row) events() float64 { return float64(r.job.events - r.job.source.done) }

// cpu is the processor time of a row in s for a million events, which is µs for one.
func cpu(r *row) float64 { return r.cost.cpu.Seconds() * 1e6 / r.events() }

// cells are a row's; a peer's figures have their ratio to ours beside them.
func (r *row) cells() []string {
	cells := []string{r.name, fmt.Sprintf("%.0f", r.events())}
	for _, f := range figures {
		text := fmt.Sprintf(f.format, f.of(r))
		switch {
		case r.ours != nil && f.of(r) == 0:
			text = "–" // not known of a peer
		case r.ours != nil:
			text += fmt.Sprintf(" (%.2f×)", f.of(r)/f.of(r.ours))
		}
		cells = append(cells, text)
	}
	written := r.job.sink.unit
	if r.cost.written > 0 {
		written = fmt.Sprintf("%d %s", r.cost.written, r.job.sink.unit)
	}
	return append(cells, written, fmt.Sprint(r.missing), fmt.Sprint(r.repeats))
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
