package admin

import (
	"net/http"
	"net/http/pprof"
	runtime "runtime/pprof"
)

// profilePath serves what `go tool pprof` reads: where a running service spends
// its time and memory, without a restart. It says nothing of events.
const profilePath = "/debug/pprof/{profile}"

// serveProfile gives a profile of the Go runtime: profile (the CPU's, for
// ?seconds, 30 unless given), trace, or a named one (allocs, goroutine, heap…).
func serveProfile(_ *Server, w http.ResponseWriter, r *http.Request) {
	switch name := r.PathValue("profile"); {
	case name == "profile":
		pprof.Profile(w, r)
	case name == "trace":
		pprof.Trace(w, r)
	case runtime.Lookup(name) != nil:
		pprof.Handler(name).ServeHTTP(w, r)
	default:
		writeError(w, http.StatusNotFound, "there is no profile "+quote(name)+"; there are profile (CPU), trace, allocs, block, goroutine, heap, mutex and threadcreate")
	}
}
