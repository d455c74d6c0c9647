#!/usr/bin/env bash
# Makes the environment in which `dwm build trumans --export-blend` runs Blender; needs Python 3.11 (about 1 GB).
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON="${PYTHON:-python3}"
VENV="${VENV:-.venv-blender}"

version="$("$PYTHON" -c 'import sys; print("%d.%d" % sys.version_info[:2])')"
if [ "$version" != 3.11 ] || [ "$(uname -m)" != x86_64 ]; then
    echo "setup: no Blender package for Python $version on $(uname -m); --export-blend is left out (it needs 3.11 on x86_64)"
    exit 0
fi
[ -x "$VENV/bin/python" ] || "$PYTHON" -m venv "$VENV"
"$VENV/bin/python" -m pip --disable-pip-version-check install --quiet -r requirements-blender.txt
echo "setup: Blender is ready ($VENV)"
