// Package engine holds the scenarios of the engine: files and HTTP in, drops and TLS lines out, with kills, outages and many tenants.
package engine
