#!/usr/bin/env bash
# Installs the receivers that integration/receivers starts: rsyslog (with RELP,
# the OpenSSL and the GnuTLS driver), syslog-ng, socat, stunnel, openssl,
# gnutls-serv, ncat, and iproute2 for network namespaces. Java, Node and Python
# run small programs of ours (below testbed/receivers); kafka.sh installs Java,
# and the others must be there for npm and pyarrow anyway. Quick where all are
# already. Needs Debian's apt-get, and root or sudo the first time.
#
# The packages of rsyslog and syslog-ng exclude each other, so syslog-ng is not
# installed but unpacked, into the folder .testbed/syslog-ng beside this one.
set -euo pipefail
bed=$(cd "$(dirname "$0")/.." && pwd)/.testbed
packages=(rsyslog rsyslog-openssl rsyslog-gnutls rsyslog-relp socat stunnel4 openssl gnutls-bin ncat iproute2
	libivykis0 libnet1 libpcre3 libwrap0 libjson-c5 libglib2.0-0) # the last six: what syslog-ng links to

as_root() {
	if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

apt() {
	as_root env DEBIAN_FRONTEND=noninteractive apt-get -qy -o DPkg::Lock::Timeout=600 "$@"
}

missing=()
for p in "${packages[@]}"; do
	[ "$(dpkg-query -Wf '${Status}' "$p" 2>/dev/null)" = 'install ok installed' ] || missing+=("$p")
done
if [ ${#missing[@]} -gt 0 ]; then
	apt update
	apt install --no-install-recommends --no-remove "${missing[@]}"
fi

if [ ! -x "$bed/syslog-ng/usr/sbin/syslog-ng" ]; then
	[ ${#missing[@]} -gt 0 ] || apt update
	mkdir -p "$bed"
	work=$(mktemp -d "$bed/unpack.XXXXXX")
	trap 'rm -rf "$work"' EXIT
	(cd "$work" && apt-get -q download syslog-ng-core)
	dpkg -x "$work"/syslog-ng-core_*.deb "$work/syslog-ng"
	rm -rf "$bed/syslog-ng"
	mv "$work/syslog-ng" "$bed/syslog-ng"
fi

rsyslogd -v | sed -n '1s/ (aka.*//p'
LD_LIBRARY_PATH="$bed/syslog-ng/usr/lib/syslog-ng" "$bed/syslog-ng/usr/sbin/syslog-ng" \
	--module-path="$bed/syslog-ng/usr/lib/syslog-ng/3.38" --version | sed -n 1p
socat -V | sed -n 2p
openssl version
