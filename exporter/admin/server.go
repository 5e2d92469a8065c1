package admin

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"
)

// Options of a Server.
type Options struct {
	// Listen is the address as configured ("127.0.0.1:8080"); it is one of the
	// Hosts a request may carry. Required.
	Listen string
	// Token is what a request must bear; empty is allowed only where Listen is
	// a loopback address, and lets everyone in who reaches it.
	Token string
	// Hosts are further values of Host to accept, with a port or without (any
	// port): the names a proxy or a browser reaches the server by.
	Hosts []string
	// Backend is what is shown and moved. Required.
	Backend Backend
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// Server is the admin API.
type Server struct {
	backend Backend
	guard   guard
	now     func() time.Time
	handler http.Handler
}

// stopIn is how long requests under way may take at a stop.
const stopIn = 5 * time.Second

// New checks the options and makes the server; it does not listen yet.
func New(o Options) (*Server, error) {
	if o.Backend.Views == nil || o.Backend.Control == nil || o.Backend.Health == nil || o.Backend.Quarantine == nil {
		return nil, errors.New("admin: Backend needs Views, Control, Health and Quarantine")
	}
	host, _, err := net.SplitHostPort(o.Listen)
	if err != nil {
		return nil, fmt.Errorf("admin.listen %q: %w; it is host:port, as 127.0.0.1:8080", o.Listen, err)
	}
	if o.Token == "" && !loopback(host) {
		return nil, fmt.Errorf("admin.listen %q can be reached from outside: set admin.token, or listen on 127.0.0.1", o.Listen)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	s := &Server{backend: o.Backend, guard: newGuard(o), now: o.Now}
	mux := http.NewServeMux()
	for _, r := range routes() {
		mux.HandleFunc(r.Method+" "+r.Path, func(w http.ResponseWriter, req *http.Request) { r.serve(s, w, req) })
	}
	mux.Handle("GET "+metricsPath, metricsHandler(o.Backend, o.Now))
	s.handler = s.guard.wrap(mux)
	return s, nil
}

// ServeHTTP answers one request; concurrent calls are fine.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.handler.ServeHTTP(w, r) }

// Serve answers on ln until ctx is done, then lets requests under way finish
// for a few seconds. It closes ln, and returns nil after such a stop.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	srv := &http.Server{
		Handler:           s,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      time.Minute,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    32 << 10,
	}
	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(ln) }()
	select {
	case err := <-failed:
		return fmt.Errorf("serving the admin API on %s: %w", ln.Addr(), err)
	case <-ctx.Done():
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopIn)
	defer cancel()
	err := srv.Shutdown(stop)
	if err != nil {
		// Somebody is still reading; the service does not wait for a viewer.
		err = srv.Close()
	}
	<-failed
	if err != nil {
		return fmt.Errorf("closing the admin API on %s: %w", ln.Addr(), err)
	}
	return nil
}
