package emittertest

import (
	"net"
	"sync"
)

// Proxy is a layer 4 proxy with a memory of its own: what it has read from the
// sender and not passed on is lost when it is killed.
type Proxy struct {
	t        TB
	target   string
	buffer   int
	addr     string
	mu       sync.Mutex
	listener net.Listener
	conns    map[net.Conn]bool
	gates    map[*gate]bool
	wg       sync.WaitGroup
}

// gate is what a connection's bytes pass, both ways.
type gate struct {
	held     chan struct{} // non-nil: nothing passes until it is closed
	forsaken bool
}

// NewProxy listens on a free port and passes bytes to target, holding up to
// buffer bytes a connection. It stops with the test.
func NewProxy(t TB, target string, buffer int) *Proxy {
	t.Helper()
	p := &Proxy{t: t, target: target, buffer: buffer, addr: "127.0.0.1:0", conns: map[net.Conn]bool{}, gates: map[*gate]bool{}}
	p.Start()
	t.Cleanup(func() { p.Kill(); p.wg.Wait() })
	return p
}

// Addr is host:port; it stays the same over Kill and Start.
func (p *Proxy) Addr() string { return p.addr }

// Start listens (again).
func (p *Proxy) Start() {
	p.t.Helper()
	l, err := net.Listen("tcp", p.addr)
	if err != nil {
		p.t.Fatalf("proxy: %v", err)
	}
	p.addr = l.Addr().String()
	p.mu.Lock()
	p.listener = l
	p.mu.Unlock()
	p.wg.Add(1)
	go func() {
		defer p.wg.Done()
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			p.wg.Add(1)
			go p.serve(c)
		}
	}()
}

// Hold makes it read on and pass nothing on, either way, until Release, its
// memory is full, or it is killed.
func (p *Proxy) Hold() { p.hold(false) }

// Forsake holds the connections of the moment for ever; new ones pass.
func (p *Proxy) Forsake() { p.hold(true) }

func (p *Proxy) hold(forsake bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for g := range p.gates {
		if g.held == nil {
			g.held = make(chan struct{})
		}
		g.forsaken = g.forsaken || forsake
	}
}

// Release ends Hold.
func (p *Proxy) Release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for g := range p.gates {
		if !g.forsaken {
			g.open()
		}
	}
}

func (g *gate) open() {
	if g.held != nil {
		close(g.held)
		g.held = nil
	}
}

// Kill closes everything as the kernel does for a killed process; what was held is lost.
func (p *Proxy) Kill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	defer func() {
		for g := range p.gates {
			g.open()
		}
	}()
	if p.listener != nil {
		_ = p.listener.Close() // its error would be that it is closed
		p.listener = nil
	}
	for c := range p.conns {
		_ = c.Close() // as above
	}
}

func (p *Proxy) serve(in net.Conn) {
	defer p.wg.Done()
	out, err := net.Dial("tcp", p.target)
	if err != nil {
		_ = in.Close() // the target is away
		return
	}
	p.mu.Lock()
	g := &gate{}
	p.conns[in], p.conns[out], p.gates[g] = true, true, true
	alive := p.listener != nil
	p.mu.Unlock()
	if !alive {
		_ = in.Close()  // killed meanwhile
		_ = out.Close() // as above
	}
	var both sync.WaitGroup
	both.Add(2)
	go func() { defer both.Done(); p.pass(g, out, in) }()
	go func() { defer both.Done(); p.pass(g, in, out) }()
	both.Wait()
	_ = in.Close()  // ended both ways
	_ = out.Close() // as above
	p.mu.Lock()
	delete(p.conns, in)
	delete(p.conns, out)
	delete(p.gates, g)
	p.mu.Unlock()
}

// pass copies with a queue of buffer bytes between reading and writing.
func (p *Proxy) pass(g *gate, to, from net.Conn) {
	queue := make(chan []byte, max(p.buffer/(16<<10), 1))
	p.wg.Add(1)
	go func() {
		defer p.wg.Done()
		defer close(queue)
		for {
			b := make([]byte, 16<<10)
			n, err := from.Read(b)
			if n > 0 {
				queue <- b[:n]
			}
			if err != nil {
				return
			}
		}
	}()
	for b := range queue {
		p.mu.Lock()
		held := g.held
		p.mu.Unlock()
		if held != nil {
			<-held
		}
		if _, err := to.Write(b); err != nil {
			_ = from.Close() // the reader ends
		}
	}
	if t, ok := to.(interface{ CloseWrite() error }); ok {
		_ = t.CloseWrite() // the other side may be gone
	}
}
