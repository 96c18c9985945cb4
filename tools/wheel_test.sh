#!/bin/sh
# Build the wheel, install it alone into an empty environment, and run the demo there.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
"${BUILD:-python3}" -m build --wheel --outdir "$place/dist" "$root"
"${PYTHON:-python3}" -m venv "$place/venv"
"$place/venv/bin/python" -m pip install --quiet --disable-pip-version-check -c "$root/constraints.txt" "$place"/dist/*.whl
cd "$place"
"$place/venv/bin/pellucid" demo --output "$place/demo"
test -s "$place/demo/report/index.html"
echo "the wheel alone runs the demo"
