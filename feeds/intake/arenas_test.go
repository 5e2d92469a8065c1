package intake

import "testing"

func TestArenasAreBounded(t *testing.T) {
	var a arenas
	if a.take() != nil {
		t.Error("something from nothing")
	}
	for range 2 * keepArenas {
		a.give(make([]byte, 5, 1<<10))
	}
	if len(a.idle) != keepArenas || a.bytes != keepArenas<<10 {
		t.Errorf("%d arenas of %d bytes", len(a.idle), a.bytes)
	}
	if b := a.take(); len(b) != 0 || cap(b) != 1<<10 || a.bytes != (keepArenas-1)<<10 {
		t.Errorf("%d of %d bytes, %d left", len(b), cap(b), a.bytes)
	}
	a.give(make([]byte, keepArenaBytes))
	if len(a.idle) != keepArenas-1 {
		t.Error("more than is to be kept")
	}
}
