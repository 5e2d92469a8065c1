package soak

import (
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"datasync/exporter/kinesis/kinesistest"
	"datasync/integration/harness"
)

// whose connections a fault ends in another way than by a drain.
const (
	ourReceiver = 1 << iota
	theirReceiver
	both = ourReceiver | theirReceiver
)

// fault is something that happens to the service, or to what it works with. It
// is over when what begin gave has returned.
type fault struct {
	name   string
	ends   bool // the service itself: not in the stretches in which it lives
	breaks int
	begin  func(r *rig) (end func())
}

// faults are all of them.
var faults = []fault{
	{"the service is killed", true, both, func(r *rig) func() { r.down(true); return r.start }},
	{"the service is stopped", true, both, func(r *rig) func() { r.down(false); return r.start }},
	{"the service is killed, and again while it starts", true, both, func(r *rig) func() {
		r.down(true)
		p := r.begin()
		harness.Pause(time.Duration(r.rng.IntN(400)) * time.Millisecond)
		p.Kill()
		p.Forget()
		return r.start
	}},
	{"the service is frozen", false, both, func(r *rig) func() { return r.freeze(r.Process) }},

	{"the receiver is killed", false, ourReceiver, func(r *rig) func() { r.receiver.Kill(); r.receiver.Forget(); return r.receiver.Up }},
	{"the receiver is stopped", false, ourReceiver, func(r *rig) func() { r.receiver.Stop(time.Minute); r.receiver.Forget(); return r.receiver.Up }},
	{"the receiver is frozen", false, ourReceiver, func(r *rig) func() { return r.freeze(r.receiver.Process) }},
	{"rsyslog is stopped", false, theirReceiver, func(r *rig) func() { r.rsyslog.Stop(time.Minute); r.rsyslog.Forget(); return r.rsyslog.Up }},
	{"rsyslog is frozen", false, theirReceiver, func(r *rig) func() { return r.freeze(r.rsyslog.Process) }},

	{"S3 answers 500", false, 0, s3Refuses(500, "InternalError")},
	{"S3 answers 503", false, 0, s3Refuses(503, "SlowDown")},
	{"S3 answers 403", false, 0, s3Refuses(403, "AccessDenied")},
	{"S3 does not answer", false, 0, func(r *rig) func() {
		answer := make(chan struct{})
		r.s3.Refuse(func(string, []byte) (int, string) { <-answer; return 0, "" })
		return func() { close(answer); r.s3.Refuse(nil) }
	}},
	{"S3 fails in any way", false, 0, func(r *rig) func() { r.s3.Fail(0.3); return func() { r.s3.Fail(0) } }},

	{"Kinesis throttles", false, 0, kinesis(kinesistest.Conditions{RecordRate: 20, ByteRate: 20_000})},
	{"Kinesis fails in part", false, 0, kinesis(kinesistest.Conditions{Failing: 0.3, Codes: []string{"InternalFailure", "ProvisionedThroughputExceededException"}})},
	{"Kinesis answers 500, or not", false, 0, kinesis(kinesistest.Conditions{Losing: 0.3, Whole: whole500()})},

	{"the broker is killed", false, 0, func(r *rig) func() { r.broker.Kill(); r.broker.Forget(); return r.broker.Up }},
	{"the broker is frozen", false, 0, func(r *rig) func() { return r.freeze(r.broker.Process) }},

	{"a sink is removed", false, 0, func(r *rig) func() {
		return r.changed(settings{without: kindNames[r.rng.IntN(int(kinds))]})
	}},
	{"a sink is added", false, 0, func(r *rig) func() { return r.changed(settings{extra: true}) }},
	{"sinks are changed", false, both, func(r *rig) func() { return r.changed(settings{other: true}) }},
	{"a tenant's file is invalid", false, 0, func(r *rig) func() {
		end := r.changed(settings{invalid: true})
		r.Signal(syscall.SIGHUP)
		return end
	}},
	{"SIGHUP", false, 0, func(r *rig) func() { r.Signal(syscall.SIGHUP); return func() { r.Signal(syscall.SIGHUP) } }},
	{"a sink is paused", false, 0, func(r *rig) func() {
		lane := fmt.Sprintf("t%04d/%s", 1+r.rng.IntN(r.tenants), kindNames[r.rng.IntN(int(kinds))])
		r.act(lane, "pause")
		return func() { r.act(lane, "resume") }
	}},
	{"poison by all feeds", false, 0, func(r *rig) func() { r.poison(); return func() {} }},
}

func s3Refuses(status int, code string) func(*rig) func() {
	return func(r *rig) func() {
		r.s3.Refuse(func(string, []byte) (int, string) { return status, code })
		return func() { r.s3.Refuse(nil) }
	}
}

// kinesis has the streams live under conditions.
func kinesis(c kinesistest.Conditions) func(*rig) func() {
	return func(r *rig) func() {
		set := func(c kinesistest.Conditions) {
			for _, s := range r.streams {
				s.Lock()
				s.Conditions = c
				s.Unlock()
			}
		}
		set(c)
		for _, s := range r.streams {
			s.Split()
		}
		return func() {
			set(kinesistest.Conditions{})
			for _, s := range r.streams {
				s.Merge()
			}
		}
	}
}

// whole500 answers two calls of three with 500.
func whole500() func() (int, string) {
	calls := 0
	return func() (int, string) {
		if calls++; calls%3 == 0 {
			return 200, ""
		}
		return 500, `{"__type":"InternalFailure","message":"made by the test"}`
	}
}

// begin starts the service and does not wait for it.
func (r *rig) begin() *harness.Process {
	r.t.Helper()
	return harness.Start(r.t, "datasync run", "run", "--config", filepath.Join(r.Dir, "datasync.yaml"))
}

// start starts the service and waits until it is ready.
func (r *rig) start() {
	r.t.Helper()
	r.Up(2 * time.Minute)
	r.watch.up(r.PID())
}

// down ends the service.
func (r *rig) down(kill bool) {
	r.t.Helper()
	r.watch.down()
	r.Peak = max(r.Peak, r.PeakMemory())
	if kill {
		r.Kill()
	} else { // it takes 30 s for its peers, and the machine may be busy
		r.Stop(2 * time.Minute)
	}
	r.Forget()
}

// freeze stops a process in the middle of whatever it does.
func (r *rig) freeze(p *harness.Process) func() {
	p.Signal(syscall.SIGSTOP)
	return func() { p.Signal(syscall.SIGCONT) }
}

// changed changes the file of one tenant, and puts it back in the end.
func (r *rig) changed(s settings) func() {
	i := 1 + r.rng.IntN(r.tenants)
	if s.extra {
		i = 1 + r.rng.IntN(extras)
		r.gather.added(i)
	}
	r.tenant(i, s)
	return func() { r.tenant(i, settings{}) }
}

// extras are the tenants, from the first on, that sinks are added to.
const extras = 5

// act asks the admin API for an action, as an operator does.
func (r *rig) act(lane, what string) {
	r.t.Helper()
	resp, err := http.Post("http://"+r.Admin+"/v1/lanes/"+lane+"/"+what, "application/json", strings.NewReader("{}"))
	if err != nil {
		r.t.Errorf("%s %s: %v", what, lane, err)
		return
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		r.t.Errorf("%s %s: %s", what, lane, resp.Status)
	}
}

// poison hands some records that are no events to each feed.
func (r *rig) poison() {
	r.t.Helper()
	for _, s := range r.load.sources {
		bad := poison(40)
		if err := s.spoil(bad); err != nil {
			r.t.Errorf("poison by %s: %v", s.feed, err)
		}
		s.bad += len(bad)
	}
}

// deck gives faults in random order, each before any comes again.
type deck struct {
	r    *rig
	of   []fault
	left []fault
}

func (d *deck) draw() fault {
	if len(d.left) == 0 {
		for _, i := range d.r.rng.Perm(len(d.of)) {
			d.left = append(d.left, d.of[i])
		}
	}
	f := d.left[0]
	d.left = d.left[1:]
	return f
}

// decks parts the faults into those that end the service and the others.
func decks(r *rig) (ends, others *deck) {
	ends, others = &deck{r: r}, &deck{r: r}
	for _, f := range faults {
		if f.ends {
			ends.of = append(ends.of, f)
		} else {
			others.of = append(others.of, f)
		}
	}
	return ends, others
}
