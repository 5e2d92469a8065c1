// Package tenants turns service, tenant and channel files into checked settings, with line and column for what is wrong.
package tenants
