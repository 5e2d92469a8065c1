package kafkafeed

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"
	"strconv"
	"syscall"
	"time"

	"github.com/segmentio/kafka-go"

	"datasync/feeds"
	"datasync/feeds/outage"
)

// The parties that may be in trouble: the group, the topic, each partition.
const (
	groupParty = "group"
	topicParty = "topic"
)

func partitionParty(n int) string { return "partition " + strconv.Itoa(n) }

// grace is how long leadership may be under way, or a connection not stand,
// before it is worth a word.
const grace = 5 * time.Second

// passing says whether a class is usually over before anybody could do anything.
func passing(class string) bool { return class == "moved" || class == "reset" }

func newTrouble(prefix string, on func(error), grace time.Duration) *outage.Teller {
	return outage.New(outage.Options{Prefix: prefix, On: on, Judge: judge, Passing: passing, Grace: grace})
}

// judge gives the class of an error and what to do about it; "" is none to
// speak of.
func judge(err error) (class, hint string) {
	var said kafka.Error
	switch {
	case err == nil, errors.Is(err, context.Canceled), errors.Is(err, errStopping):
		return "", ""
	case errors.Is(err, feeds.ErrFull):
		return "full", "raise journal.max_bytes, or see which sinks are behind: datasync status"
	case errors.Is(err, errKeep):
		return "journal", "look at the disk of data_dir; it is tried again"
	case errors.Is(err, errGarbled):
		return "corrupt", "it is fetched again; where it stays, the broker's copy is damaged: look at its disk and at the network"
	case errors.Is(err, errFormat):
		return "invalid", "have the topic written anew by a client of this decade"
	case errors.Is(err, errStranger):
		return "stranger", "give this feed a group of its own: what the other takes in it, the feed never reads; it is tried again"
	case errors.Is(err, errTooOld):
		return "invalid", "Kafka 2.1 or later is needed"
	case errors.Is(err, errOtherTopic):
		return "invalid", "give the feed of the new topic another name, so that it gets shards of its own"
	case errors.Is(err, errShorter), errors.Is(err, errMadeAnew):
		return "invalid", "give the feed another name to read the topic from its beginning; records below the wanted offset are not taken"
	case errors.As(err, &said):
		return judgeKafka(said)
	}
	return judgeNetwork(err)
}

// judgeKafka is judge for what a broker says.
func judgeKafka(e kafka.Error) (class, hint string) {
	switch e {
	case kafka.RebalanceInProgress, kafka.IllegalGeneration, kafka.UnknownMemberId, kafka.MemberIDRequired:
		return "", ""
	case kafka.SASLAuthenticationFailed:
		return "auth", "check sasl.username and sasl.password, and that the broker knows this user for this mechanism"
	case kafka.UnsupportedSASLMechanism, kafka.IllegalSASLState:
		return "auth", "check sasl.mechanism against what the broker's listener allows"
	case kafka.TopicAuthorizationFailed:
		return "forbidden", "let this user read and describe the topic"
	case kafka.GroupAuthorizationFailed:
		return "forbidden", "let this user read the group"
	case kafka.ClusterAuthorizationFailed:
		return "forbidden", "let this user describe the cluster"
	case kafka.UnknownTopicOrPartition:
		return "not-found", "create the topic, or check feeds.kafka.topic; it is looked for again"
	case kafka.NotLeaderForPartition, kafka.LeaderNotAvailable, kafka.BrokerNotAvailable, kafka.ReplicaNotAvailable, kafka.FencedLeaderEpoch,
		kafka.GroupCoordinatorNotAvailable, kafka.NotCoordinatorForGroup, kafka.GroupLoadInProgress, kafka.OffsetNotAvailable:
		return "moved", "the brokers are moving leadership; it is tried again"
	}
	return "kafka " + strconv.Itoa(int(e)), "the broker's log says more; it is tried again"
}

// judgeNetwork is judge for what happens on the way to a broker.
func judgeNetwork(err error) (class, hint string) {
	var (
		dns    *net.DNSError
		verify *tls.CertificateVerificationError
		host   x509.HostnameError
		header tls.RecordHeaderError
		op     *net.OpError
		timed  net.Error
	)
	switch {
	case errors.As(err, &dns):
		return "dns", "check the host name in brokers, and advertised.listeners of the broker"
	case errors.As(err, &host):
		return "tls-verify", "the certificate is for another name: set tls.server_name, or have it reissued"
	case errors.As(err, &verify):
		return "tls-verify", "set tls.ca to the authority that signed the broker's certificate, or check that it is not expired"
	case errors.As(err, &header):
		return "tls-verify", "the broker does not speak TLS on this port"
	case errors.As(err, &op) && op.Op == "remote error":
		return "tls-client-cert", "the broker refused the handshake: set tls.cert and tls.key where it wants a client certificate"
	case errors.Is(err, os.ErrNotExist), errors.Is(err, os.ErrPermission):
		return "tls-verify", "check the files that tls names"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connect", "nothing listens there: check that the broker runs, and the port; it is tried again"
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded), errors.As(err, &timed) && timed.Timeout():
		return "timeout", "no answer: check that the broker runs and that no firewall drops the packets"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, net.ErrClosed):
		return "reset", "the broker ended the connection: it is restarting, or its listener wants tls or sasl; its log says which"
	}
	return "connect", "check brokers, the route and the network"
}
