#!/usr/bin/env bash
# Installs the peers that integration/bench measures beside us, where they can
# be had: rsyslog's Kafka input (Debian) and an OpenTelemetry Collector of the
# components that are needed (Go modules; minutes to build). Quick where they are
# there already. Needs Debian's apt-get, and root or sudo the first time.
# receivers.sh brings rsyslog.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

as_root() {
	if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

if [ "$(dpkg-query -Wf '${Status}' rsyslog-kafka 2>/dev/null)" != 'install ok installed' ]; then
	for args in 'update' 'install --no-install-recommends --no-remove rsyslog-kafka'; do
		# shellcheck disable=SC2086
		as_root env DEBIAN_FRONTEND=noninteractive apt-get -qy -o DPkg::Lock::Timeout=600 $args
	done
fi
dpkg-query -Wf '${Package} ${Version}\n' rsyslog-kafka librdkafka1

collector="$here/../.testbed/otelcol"
if [ ! -x "$collector" ] || [ "$here/peers/otelcol/go.mod" -nt "$collector" ]; then
	(cd "$here/peers/otelcol" && CGO_ENABLED=0 go build -trimpath -o "$collector" .)
fi
"$collector" --version
