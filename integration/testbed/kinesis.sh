#!/usr/bin/env bash
# Installs what the Kinesis tests need from npm: kinesalite, a server that
# speaks Kinesis' protocol, and dynalite, one that speaks DynamoDB's, where the
# KCL keeps its leases. Quick when they are there already.
set -euo pipefail
cd "$(dirname "$0")"
want="kinesalite@3.3.3 dynalite@4.0.0"
have=$(node -p '["kinesalite", "dynalite"].map((p) => p + "@" + require(`./node_modules/${p}/package.json`).version).join(" ")' 2>/dev/null || true)
# In one go: npm removes what a call does not name.
# shellcheck disable=SC2086
[ "$have" = "$want" ] || npm install --prefix . --no-save --no-package-lock --no-audit --no-fund $want
