package adapt

import (
	"bytes"

	"datasync/schemas"
)

// canonical passes mitigation/1 events through: one scan, one copy, nothing
// allocated per event. Unknown fields stay where they are.
func canonical(in *Input, out *Output) {
	v := in.Value
	if i := firstByte(v); i < len(v) && v[i] == '{' {
		p := schemas.Scan(v, in.Now, &out.head)
		switch {
		case p == nil:
			out.store(in, 0, v, v[i:out.head.End])
			return
		case bytes.IndexByte(v[i:], '\n') < 0:
			out.refuse(in, 0, v, p)
			return
		}
	}
	// Lines and arrays: each event is judged and stored in one pass; only what is
	// none goes the long way round, which finds out where it ends and what it is.
	index := 0
	take := func(rest []byte, whole bool) int {
		var p *schemas.Problem
		if whole {
			p = schemas.Scan(rest, in.Now, &out.head)
		} else {
			p = schemas.ScanFirst(rest, in.Now, &out.head)
		}
		if p != nil {
			return 0
		}
		n := out.head.End
		out.store(in, index, rest[:n], rest[:n:n])
		return n
	}
	out.valuesBy(in, &index, take, func(v []byte) { out.add(in, index, v, v) })
}

// firstByte is the place of the first byte that is no whitespace.
func firstByte(b []byte) int {
	i := 0
	for i < len(b) && (b[i] == ' ' || b[i] == '\t' || b[i] == '\n' || b[i] == '\r') {
		i++
	}
	return i
}
