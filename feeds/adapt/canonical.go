package adapt

// canonical passes mitigation/1 events through: one scan, one copy, nothing
// allocated per event. Unknown fields stay where they are.
func canonical(in *Input, out *Output) {
	if i := firstByte(in.Value); i < len(in.Value) && in.Value[i] == '{' {
		out.add(in, 0, in.Value, in.Value)
		return
	}
	out.values(in, func(index int, v []byte) { out.add(in, index, v, v) })
}

// firstByte is the place of the first byte that is no whitespace.
func firstByte(b []byte) int {
	i := 0
	for i < len(b) && (b[i] == ' ' || b[i] == '\t' || b[i] == '\n' || b[i] == '\r') {
		i++
	}
	return i
}
