// Package kafka holds the tests of the Kafka feed: the built program against a broker in process (kfake) and against Apache Kafka itself.
package kafka
