#!/bin/sh
# Installs the platform from this clone into .venv: ./install.sh LOCKFILE
set -eu
cd "$(dirname "$0")"
lock=$1

say() { printf '%s\n' "$*" >&2; }
fail() { say "$@"; exit 1; }

[ -n "${PYTHON:-}" ] || fail "No Python was found." "  Install Python 3.11, 3.12 or 3.13, or say where it is: make PYTHON=/path/to/python3.11 demo"
"$PYTHON" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' ||
    fail "$PYTHON is $("$PYTHON" --version 2>&1), and 3.11, 3.12 or 3.13 is needed." "  Say where one is: make PYTHON=/path/to/python3.11 demo"
"$PYTHON" -c 'import ensurepip' 2>/dev/null ||
    fail "$PYTHON cannot make virtual environments." "  On Debian: apt install python3-venv"

say "Installing the packages of $lock into .venv (the first time about a minute)"
[ -x .venv/bin/python ] || "$PYTHON" -m venv .venv
.venv/bin/python -m pip install --quiet --disable-pip-version-check "$(grep '^uv==' requirements.lock)" >.venv/install.log 2>&1 || {
    cat .venv/install.log >&2
    fail "pip could not install uv." "  Check the network and pip's settings: .venv/bin/pip config list"
}
# uv does not read pip's settings, and only they say where this machine's index is.
uv() {
    .venv/bin/python -c 'import os, runpy, sys
sys.path.insert(0, ".")
variables = runpy.run_path("tracklayer/packages/index.py")["uv_variables"]()
os.execve(sys.argv[1], sys.argv[1:], os.environ | variables)' .venv/bin/uv "$@"
}
uv pip install --python .venv/bin/python --quiet --no-deps --compile-bytecode --requirement "$lock" &&
    uv pip install --python .venv/bin/python --quiet --no-deps --editable . ||
    fail "The packages could not be installed; see above."
.venv/bin/python -m compileall -q tracklayer operators plugins || true
