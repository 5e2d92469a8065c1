#!/usr/bin/env bash
# Installs what the Kinesis tests need: kinesalite (npm), a server that speaks
# Kinesis' protocol. Quick when it is there already.
set -euo pipefail
cd "$(dirname "$0")"
version=3.3.3
have=$(node -p 'require("./node_modules/kinesalite/package.json").version' 2>/dev/null || true)
[ "$have" = "$version" ] || npm install --prefix . --no-save --no-package-lock --no-audit --no-fund "kinesalite@$version"
