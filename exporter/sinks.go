package exporter

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"time"

	"datasync/emitter"
	"datasync/exporter/check"
	"datasync/exporter/dir"
	"datasync/exporter/emit"
	"datasync/exporter/kinesis"
	"datasync/exporter/lane"
	"datasync/exporter/s3"
	"datasync/exporter/state"
	"datasync/exporter/tenants"
	"datasync/formats/syslog"
)

// makeSink builds a sink from its settings: the one place that knows all kinds.
func (s *Service) makeSink(set *tenants.Sink, peers state.Peers) (*lane.Sink, error) {
	sink := &lane.Sink{Settings: set}
	buffer := s.streamBuffer()
	switch {
	case set.Dir != nil:
		sink.Drops, sink.Place = s.folders.Sink(set.Dir.Path), set.Dir.Path
	case set.S3 != nil:
		bucket := s3.New(set.S3, s.buckets)
		sink.Drops, sink.Prefix, sink.Place = bucket, bucket.Prefix(), bucket.Place()
	case set.Emitter != nil:
		stream, err := s.makeStream(set, peers, buffer)
		if err != nil {
			return nil, err
		}
		sink.Stream = stream
		if sink.Frame, err = framer(set.Emitter); err != nil {
			return nil, fmt.Errorf("sink %s/%s: %w", set.Tenant, set.Name, err)
		}
	case set.Kinesis != nil:
		o := kinesisOptions(set.Kinesis, s.cfg.Egress)
		o.Buffer, o.Shared, o.Dial, o.Chance = max(buffer/2, minBuffer), s.shared, s.netDial(), s.o.Chance
		stream, err := kinesis.New(o, s.runner)
		if err != nil {
			return nil, fmt.Errorf("sink %s/%s: %w", set.Tenant, set.Name, err)
		}
		sink.Stream = stream
	default:
		return nil, fmt.Errorf("sink %s/%s: its kind is not in this build", set.Tenant, set.Name)
	}
	if sink.Stream != nil {
		sink.Stream.Chunk = buffer / 3
		if set.Emitter != nil && set.Emitter.Confirm == "protocol" {
			// A segment is confirmed, and repeated, as a whole; the peer's answers come line by line.
			sink.Stream.Chunk = min(sink.Stream.Chunk, 32<<10)
		}
	}
	return sink, nil
}

func (s *Service) makeStream(set *tenants.Sink, peers state.Peers, buffer int) (*lane.Stream, error) {
	key := state.Key{Tenant: set.Tenant, Sink: set.Name}
	learned := state.Peers{}
	for a, v := range peers {
		learned[a] = v
	}
	client := emitterOptions(set.Emitter, s.cfg.Egress)
	client.Buffer, client.Dial, client.Tuning.Chance = buffer, s.o.Dial, s.o.Chance
	stream, err := emit.New(emit.Options{
		Client: client,
		Known:  peers,
		Refuse: s.runner.Refuse,
		Learned: func(address, answer string) { // from one goroutine, the client's
			learned[address] = answer
			s.control.Learn(key, learned)
		},
	}, s.runner)
	if err != nil {
		return nil, fmt.Errorf("sink %s: %w", key, err)
	}
	return stream, nil
}

func emitterOptions(e *tenants.EmitterSink, rules tenants.Egress) emitter.Options {
	return emitter.Options{
		Addresses: e.Addresses,
		TLS: emitter.TLS{CA: e.TLS.CA, Cert: e.TLS.Cert, Key: e.TLS.Key,
			ServerName: e.TLS.ServerName, MinVersion: e.TLS.MinVersion},
		Confirm: map[string]emitter.Confirm{"window": emitter.Window, "protocol": emitter.Protocol}[e.Confirm], Octets: e.Framing == "octet-counted",
		RotateEvery: e.RotateEvery, RotateBytes: e.RotateBytes, RetryMax: e.RetryMax,
		Control: newEgress(rules).control,
	}
}

func kinesisOptions(k *tenants.KinesisSink, rules tenants.Egress) kinesis.Options {
	return kinesis.Options{
		Stream: k.Stream, Region: k.AWS.Region, Endpoint: k.AWS.Endpoint, RoleARN: k.AWS.RoleARN, ExternalID: k.AWS.ExternalID,
		PartitionKey: k.PartitionKey, Ordered: k.Ordered, Aggregate: k.Aggregate, Control: newEgress(rules).control,
	}
}

// streamBuffer is how many bytes may wait in one stream sink: an eighth of the
// memory budget shared among all of them. Kinesis sinks have half of it each,
// and the other halves together.
func (s *Service) streamBuffer() int {
	return int(min(max(s.cfg.Memory/8/int64(max(s.steward.streams, 1)), minBuffer), 1<<20))
}

// minBuffer is what a stream sink has, however many there are.
const minBuffer = 32 << 10

// framer is how an emitter's lines go on the wire; nil: as they are.
func framer(e *tenants.EmitterSink) (func(dst, lines []byte) []byte, error) {
	if e.Framing != "octet-counted" {
		return nil, nil
	}
	f, err := syslog.New(syslog.Options{Facility: e.Syslog.Facility, AppName: e.Syslog.AppName, MsgID: e.Syslog.MsgID})
	if err != nil {
		return nil, err
	}
	return func(dst, lines []byte) []byte {
		for len(lines) > 0 {
			n := bytes.IndexByte(lines, '\n')
			dst = f.AppendFrame(dst, lines[:n], syslog.MetaOf(lines[:n]))
			lines = lines[n+1:]
		}
		return dst
	}, nil
}

// openSinks makes what all S3 sinks share, and all folders.
func (s *Service) openSinks() error {
	s.folders = dir.NewFolders(s.store.ID())
	s.buckets = s3.NewClients(s.store.ID(), s3.Options{Control: newEgress(s.cfg.Egress).control, Dial: s.netDial(),
		Report: func(message string) { s.log.Warn().Msg(message) }})
	return nil
}

// netDial is Options.Dial for those to whom a connection is just that.
func (s *Service) netDial() func(ctx context.Context, network, address string) (net.Conn, error) {
	if s.o.Dial == nil {
		return nil
	}
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		return s.o.Dial(ctx, network, address)
	}
}

// TestSink tries one sink out with the service's settings, by the code with
// which its lanes deliver, and touches neither journal nor lanes. It tells each
// step as it ends, and says whether the sink would work.
func TestSink(ctx context.Context, cfg *tenants.Service, set *tenants.Sink, tell func(check.Step)) (bool, error) {
	r := check.New(tell)
	switch {
	case set.Dir != nil:
		return dir.Check(ctx, set.Dir.Path, check.ObjectKey("", string(set.Tenant), set.Name), set.Deliver.MaxBytes, r), nil
	case set.S3 != nil:
		bucket := s3.New(set.S3, s3.NewClients("test-"+check.Token(), s3.Options{Control: r.Control(newEgress(cfg.Egress).control)}))
		return bucket.Check(ctx, check.ObjectKey(bucket.Prefix(), string(set.Tenant), set.Name), r), nil
	case set.Emitter != nil:
		line, id := check.Event(set.Tenant, set.Output.Fields, time.Now())
		frame, err := framer(set.Emitter)
		if err != nil {
			return false, fmt.Errorf("sink %s/%s: %w", set.Tenant, set.Name, err)
		}
		if frame != nil {
			line = frame(nil, line)
		}
		return emit.Check(ctx, emitterOptions(set.Emitter, cfg.Egress), line, id, r), nil
	case set.Kinesis != nil:
		line, _ := check.Event(set.Tenant, set.Output.Fields, time.Now())
		o := kinesisOptions(set.Kinesis, cfg.Egress)
		o.Control = r.Control(o.Control)
		return kinesis.Check(ctx, o, line, r), nil
	}
	return false, fmt.Errorf("sink %s/%s: its kind is not in this build", set.Tenant, set.Name)
}
