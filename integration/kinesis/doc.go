// Package kinesis holds the scenarios of the Kinesis sink: the built program against kinesalite, read by the Kinesis Client Library, and against our own fake.
package kinesis
