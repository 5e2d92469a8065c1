#!/usr/bin/env bash
# Installs strace, with which tests make system calls fail, or end the program
# at one of them. Quick where it is already. Needs Debian's apt-get, and root or
# sudo the first time.
set -euo pipefail

as_root() {
	if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

apt() {
	as_root env DEBIAN_FRONTEND=noninteractive apt-get -qy -o DPkg::Lock::Timeout=600 "$@"
}

if ! command -v strace >/dev/null; then
	apt update
	apt install --no-install-recommends strace
fi
strace --version | sed -n 1p
