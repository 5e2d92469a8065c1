// Package receivers holds the scenarios of emitters to TLS receivers of other makers: rsyslog, syslog-ng, openssl, socat, stunnel.
package receivers
