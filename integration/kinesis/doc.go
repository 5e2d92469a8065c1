// Package kinesis holds the scenarios of the Kinesis sink: the built program against kinesalite.
package kinesis
