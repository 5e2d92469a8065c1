// Package sources holds the tests of the feeds that other programs fill: lines over TLS, Kinesis streams, S3 objects announced through SQS.
package sources
