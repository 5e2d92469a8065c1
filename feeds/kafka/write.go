package kafkafeed

import (
	"context"
	"fmt"
	"time"

	"github.com/segmentio/kafka-go"

	"datasync/feeds"
)

// WriterOptions of a Writer.
type WriterOptions struct {
	Brokers []string // host:port of some of them
	Topic   string
	// Compression is none, gzip, snappy, lz4 or zstd; "" is none.
	Compression string
	// Spread puts records without a key into all partitions in turn.
	Spread bool
}

// Writer writes records to a topic: records of one key to one partition, all
// replicas in sync before they count as written. It is for trying and for
// benchmarks; a record whose answer is lost may be written twice.
type Writer struct {
	w    *kafka.Writer
	msgs []kafka.Message
}

// NewWriter makes a writer. No broker is asked for anything yet.
func NewWriter(o WriterOptions) (*Writer, error) {
	w := &kafka.Writer{
		Addr: kafka.TCP(o.Brokers...), Topic: o.Topic, Balancer: &kafka.Hash{}, RequiredAcks: kafka.RequireAll,
		BatchSize: 1 << 14, BatchBytes: 900 << 10, BatchTimeout: 5 * time.Millisecond, AllowAutoTopicCreation: true,
		MaxAttempts: 20, WriteBackoffMin: 100 * time.Millisecond, WriteBackoffMax: time.Second,
		Transport: &kafka.Transport{ClientID: clientID, DialTimeout: dialTimeout, MetadataTTL: time.Second},
	}
	if o.Spread {
		w.Balancer = &kafka.RoundRobin{ChunkSize: 500}
	}
	if o.Compression != "" {
		if err := w.Compression.UnmarshalText([]byte(o.Compression)); err != nil {
			return nil, fmt.Errorf("kafka writer: compression %q: use none, gzip, snappy, lz4 or zstd", o.Compression)
		}
	}
	return &Writer{w: w}, nil
}

// Write returns when all records (their keys and values) are written.
func (w *Writer) Write(ctx context.Context, records []feeds.Record) error {
	w.msgs = w.msgs[:0]
	for i := range records {
		w.msgs = append(w.msgs, kafka.Message{Key: records[i].Key, Value: records[i].Value})
	}
	if err := w.w.WriteMessages(ctx, w.msgs...); err != nil {
		return fmt.Errorf("write %d records to topic %s at %s: %w", len(records), w.w.Topic, w.w.Addr, err)
	}
	return nil
}

// Close ends the writer's connections.
func (w *Writer) Close() error { return w.w.Close() }
