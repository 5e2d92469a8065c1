// Package kinesistest holds Kinesis streams in memory for tests, with the service's limits, its partial failures and resharding, and unpacks records as the Kinesis Client Library does.
package kinesistest
