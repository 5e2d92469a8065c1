package kafkafeed

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/sasl"
	"github.com/segmentio/kafka-go/sasl/plain"
	"github.com/segmentio/kafka-go/sasl/scram"
)

// TLS is how to speak TLS to the brokers; all files are PEM and read anew for
// each connection, so that a renewed certificate needs no restart.
type TLS struct {
	CA         string // "": the system's roots
	Cert, Key  string // "": no client certificate
	ServerName string // "": the host that is dialled
	MinVersion uint16 // 0: TLS 1.2
}

// config reads the files.
func (t *TLS) config(host string) (*tls.Config, error) {
	c := &tls.Config{ServerName: t.ServerName, MinVersion: max(t.MinVersion, tls.VersionTLS12)}
	if c.ServerName == "" {
		c.ServerName = host
	}
	if t.CA != "" {
		pem, err := os.ReadFile(t.CA)
		if err != nil {
			return nil, fmt.Errorf("read tls.ca: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("tls.ca %s holds no PEM certificate", t.CA)
		}
	}
	if t.Cert != "" {
		pair, err := tls.LoadX509KeyPair(t.Cert, t.Key)
		if err != nil {
			return nil, fmt.Errorf("read tls.cert and tls.key: %w", err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}

const (
	dialTimeout = 10 * time.Second
	keepAlive   = 15 * time.Second
	clientID    = "datasync"
)

// client reaches the brokers. It is safe for concurrent use.
type client struct {
	brokers []string
	tls     *TLS
	dialer  *kafka.Dialer
	group   *kafka.Client // what a member of a group says beside kafka-go's own

	mu    sync.Mutex
	conns map[*tracked]bool
	off   bool
}

func newClient(o *Options) (*client, error) {
	c := &client{brokers: o.Brokers, tls: o.TLS, conns: map[*tracked]bool{}}
	c.dialer = &kafka.Dialer{ClientID: clientID, Timeout: dialTimeout, DialFunc: c.dial}
	if o.SASL != nil {
		var err error
		if c.dialer.SASLMechanism, err = o.SASL.mechanism(); err != nil {
			return nil, err
		}
	}
	c.group = &kafka.Client{Addr: kafka.TCP(o.Brokers...), Timeout: dialTimeout, Transport: &kafka.Transport{
		Dial: c.dial, DialTimeout: dialTimeout, ClientID: clientID, SASL: c.dialer.SASLMechanism, MetadataTopics: []string{o.Topic},
	}}
	return c, nil
}

// close ends the connections that wait to be used again.
func (c *client) close() { c.group.Transport.(*kafka.Transport).CloseIdleConnections() }

// commit writes a generation's offsets to its group, with what they are marked by.
func (c *client) commit(ctx context.Context, gen *kafka.Generation, topic string, offsets map[int]int64, mark string) error {
	req := kafka.OffsetCommitRequest{GroupID: gen.GroupID, GenerationID: int(gen.ID), MemberID: gen.MemberID, Topics: map[string][]kafka.OffsetCommit{}}
	for n, offset := range offsets {
		req.Topics[topic] = append(req.Topics[topic], kafka.OffsetCommit{Partition: n, Offset: offset, Metadata: mark})
	}
	resp, err := c.group.OffsetCommit(ctx, &req)
	if err != nil {
		return err
	}
	for _, p := range resp.Topics[topic] {
		if p.Error != nil {
			return fmt.Errorf("partition %d: %w", p.Partition, p.Error)
		}
	}
	return nil
}

// mark is what the offset that a group has of a partition was marked by.
func (c *client) mark(ctx context.Context, group, topic string, partition int) (string, error) {
	resp, err := c.group.OffsetFetch(ctx, &kafka.OffsetFetchRequest{GroupID: group, Topics: map[string][]int{topic: {partition}}})
	switch {
	case err != nil:
		return "", err
	case resp.Error != nil:
		return "", resp.Error
	}
	for _, p := range resp.Topics[topic] {
		if p.Partition == partition {
			return p.Metadata, p.Error
		}
	}
	return "", nil
}

func (s *SASL) mechanism() (sasl.Mechanism, error) {
	switch s.Mechanism {
	case "plain":
		return plain.Mechanism{Username: s.User, Password: s.Password}, nil
	case "scram-sha-256":
		return scram.Mechanism(scram.SHA256, s.User, s.Password)
	case "scram-sha-512":
		return scram.Mechanism(scram.SHA512, s.User, s.Password)
	}
	return nil, fmt.Errorf("sasl mechanism %q: use plain, scram-sha-256 or scram-sha-512", s.Mechanism)
}

// dial opens a connection, TLS included.
func (c *client) dial(ctx context.Context, network, address string) (net.Conn, error) {
	d := net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: keepAlive, Interval: keepAlive, Count: 4}}
	conn, err := d.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	if c.tls != nil {
		if conn, err = c.handshake(ctx, conn, address); err != nil {
			return nil, err
		}
	}
	t := &tracked{Conn: conn, of: c}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.off {
		return nil, errors.Join(errStopping, conn.Close())
	}
	c.conns[t] = true
	return t, nil
}

func (c *client) handshake(ctx context.Context, conn net.Conn, address string) (net.Conn, error) {
	host, _, _ := net.SplitHostPort(address) // it was just dialled
	config, err := c.tls.config(host)
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	t := tls.Client(conn, config)
	if err := t.HandshakeContext(ctx); err != nil {
		_ = conn.Close() // the handshake's error is what counts
		return nil, fmt.Errorf("TLS handshake with %s: %w", address, err)
	}
	return t, nil
}

// errStopping is the end of all connections at a stop.
var errStopping = errors.New("the feed is stopping")

// cut ends all connections, and those to come.
func (c *client) cut() {
	c.mu.Lock()
	c.off = true
	conns := make([]*tracked, 0, len(c.conns))
	for t := range c.conns {
		conns = append(conns, t)
	}
	c.mu.Unlock()
	for _, t := range conns {
		_ = t.Close() // whoever uses it is told
	}
}

// tracked is a connection that cut can find.
type tracked struct {
	net.Conn
	of *client
}

// Close implements net.Conn.
func (t *tracked) Close() error {
	t.of.mu.Lock()
	delete(t.of.conns, t)
	t.of.mu.Unlock()
	return t.Conn.Close()
}

// eachBroker tries the brokers in order until one answers. A broker's own
// answer (an error of Kafka's) is an answer.
func (c *client) eachBroker(ctx context.Context, f func(ctx context.Context, address string) error) error {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	var errs []error
	for _, b := range c.brokers {
		err := f(ctx, b)
		var said kafka.Error
		if err == nil || ctx.Err() != nil || errors.As(err, &said) {
			return err
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// partitions counts a topic's partitions.
func (c *client) partitions(ctx context.Context, topic string) (n int, err error) {
	err = c.eachBroker(ctx, func(ctx context.Context, address string) error {
		ps, err := c.dialer.LookupPartitions(ctx, "tcp", address, topic)
		n = len(ps)
		return err
	})
	return n, err
}

// leader looks up who leads a partition now.
func (c *client) leader(ctx context.Context, topic string, partition int) (p kafka.Partition, err error) {
	err = c.eachBroker(ctx, func(ctx context.Context, address string) error {
		p, err = c.dialer.LookupPartition(ctx, "tcp", address, topic, partition)
		return err
	})
	return p, err
}

// open dials the leader of a partition: logged in, and known to understand
// what we are going to ask.
func (c *client) open(ctx context.Context, topic string, partition int) (*fetcher, error) {
	p, err := c.leader(ctx, topic, partition)
	if err != nil {
		return nil, fmt.Errorf("look up the leader: %w", err)
	}
	address := net.JoinHostPort(p.Leader.Host, strconv.Itoa(p.Leader.Port))
	// kafka-go dials and logs in; fetching is ours (wire.go), so the
	// connection below its Conn is kept. Between two requests it holds no bytes back.
	var below net.Conn
	d := *c.dialer
	d.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := c.dial(ctx, network, address)
		below = conn
		return conn, err
	}
	conn, err := d.DialPartition(ctx, "tcp", "", p)
	if err != nil {
		if below != nil {
			_ = below.Close() // the first error is what counts
		}
		return nil, err
	}
	f := &fetcher{conn: below, address: address, topic: topic, partition: int32(partition)}
	if err := speaks(conn); err != nil {
		_ = conn.Close() // the first error is what counts
		return nil, fmt.Errorf("ask %s what it understands: %w", address, err)
	}
	return f, nil
}

// speaks makes sure that a broker knows the requests that wire.go makes.
func speaks(conn *kafka.Conn) error {
	if err := conn.SetDeadline(time.Now().Add(dialTimeout)); err != nil {
		return err
	}
	versions, err := conn.ApiVersions()
	if err != nil {
		return err
	}
	for _, v := range versions {
		if v.ApiKey == fetchKey && v.MinVersion <= fetchVersion && fetchVersion <= v.MaxVersion {
			return conn.SetDeadline(time.Time{})
		}
	}
	return errTooOld
}

// errTooOld is a broker that cannot answer us.
var errTooOld = errors.New("the broker does not know Fetch in version 10")

// bounds asks the leader for the partition's first offset and the one behind
// its last, twice: an answer that leads to a gap must not hang on one bit.
func (c *client) bounds(ctx context.Context, topic string, partition int) (first, end int64, err error) {
	p, err := c.leader(ctx, topic, partition)
	if err != nil {
		return 0, 0, fmt.Errorf("look up the leader: %w", err)
	}
	conn, err := c.dialer.DialPartition(ctx, "tcp", "", p)
	if err != nil {
		return 0, 0, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(dialTimeout)); err != nil {
		return 0, 0, err
	}
	for {
		was := first
		if first, end, err = conn.ReadOffsets(); err != nil {
			return 0, 0, fmt.Errorf("ask for the first and last offset: %w", err)
		}
		if was == first {
			return first, end, nil
		}
	}
}
