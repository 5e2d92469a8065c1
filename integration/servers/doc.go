// Package servers starts the systems that the program works with, each real and on loopback: Kafka, S3 stores, kinesalite and the Kinesis Client Library, TLS receivers, and the authorities that issue their certificates.
package servers
