// Package admin is the service's HTTP API for operators: health, metrics,
// lanes, tenants, the ledger and the quarantine.
package admin
