#!/usr/bin/env bash
# Makes the environment: the GL libraries that the renderer needs, a virtual environment, the pinned packages.
# Safe to run again; called by the Makefile when an input has changed.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON="${PYTHON:-python3}"
VENV="${VENV:-.venv}"

"$PYTHON" - <<'PY'
import sys
if sys.version_info < (3, 11):
    sys.exit(f"Python {sys.version.split()[0]} is too old: 3.11 or newer is needed; run `make PYTHON=/path/to/python3.11 ...`")
PY

missing_libraries() {
    local library missing=()
    for library in libEGL.so.1:libegl1 libGL.so.1:libgl1; do
        ldconfig -p 2>/dev/null | grep -q "${library%%:*}" || missing+=("${library##*:}")
    done
    echo "${missing[*]:-}"
}

packages="$(missing_libraries)"
if [ -n "$packages" ]; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        echo "setup: installing Debian packages: $packages"
        apt-get update -q >/dev/null
        # shellcheck disable=SC2086
        DEBIAN_FRONTEND=noninteractive apt-get install -y -q $packages >/dev/null
    else
        echo "setup: the renderer needs Debian packages that are missing here. Run:"
        echo "    sudo apt-get update && sudo apt-get install -y $packages"
        exit 1
    fi
fi

[ -x "$VENV/bin/python" ] || "$PYTHON" -m venv "$VENV"
pip=("$VENV/bin/python" -m pip --disable-pip-version-check install --quiet)

# torch first: a CPU wheel that this machine offers is taken, a machine with a GPU gets the CUDA build.
"${pip[@]}" "$(grep '^torch==' constraints.txt)"
"${pip[@]}" -c constraints.txt -e ".[dev,hands]"
"${pip[@]}" --no-deps -r requirements-nodeps.txt
echo "setup: ready ($("$VENV/bin/python" --version), $VENV)"
