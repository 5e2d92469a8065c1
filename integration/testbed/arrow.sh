#!/usr/bin/env bash
# Installs the reader of drops that integration/readers starts beside DuckDB:
# pyarrow (PyPI), in an environment of its own below the folder .testbed beside
# this one. Quick where it is already. Needs Python 3.
set -euo pipefail
bed=$(cd "$(dirname "$0")/.." && pwd)/.testbed
pyarrow=26.0.1
mkdir -p "$bed"

if ! "$bed/pyarrow/bin/python" -c "import pyarrow, sys; sys.exit(pyarrow.__version__ != '$pyarrow')" 2>/dev/null; then
	python3 -m venv "$bed/pyarrow"
	"$bed/pyarrow/bin/pip" install --quiet --disable-pip-version-check "pyarrow==$pyarrow"
fi

"$bed/pyarrow/bin/python" -c 'import pyarrow; print("pyarrow", pyarrow.__version__)'
