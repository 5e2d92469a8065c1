// Package edge holds what edges send: Netacea's own plugin, Logpush uploads and Firehose deliveries against the built program.
package edge
