#!/usr/bin/env bash
# Installs the stores that integration/s3 starts, into the folder .testbed
# beside this one: versitygw (Go module proxy) and moto (PyPI, in an
# environment of its own). Quick where they are already. Needs Go and Python 3.
set -euo pipefail
bed=$(cd "$(dirname "$0")/.." && pwd)/.testbed
versitygw=v1.8.0
moto=5.2.5
mkdir -p "$bed/bin"

if ! go version -m "$bed/bin/versitygw" 2>/dev/null | grep -q "versity/versitygw	$versitygw"; then
	# Outside of a module: what it needs is not what the product needs.
	(cd "$bed" && GOFLAGS=-mod=mod GOBIN="$bed/bin" go install "github.com/versity/versitygw/cmd/versitygw@$versitygw")
fi

if ! "$bed/moto/bin/python" -c "import moto, sys; sys.exit(moto.__version__ != '$moto')" 2>/dev/null; then
	python3 -m venv "$bed/moto"
	"$bed/moto/bin/pip" install --quiet --disable-pip-version-check "moto[server,s3]==$moto"
fi

echo "versitygw $versitygw"
"$bed/moto/bin/python" -c 'import moto; print("moto", moto.__version__)'
