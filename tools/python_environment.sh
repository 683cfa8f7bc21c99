#!/bin/sh
# Makes the virtual environment that tests/python run in, with the package built against the library of a build tree: nothing
# of the library is compiled again. Does only what is out of date.
#   python_environment.sh PYTHON CMAKE BUILD_TREE VENV
set -eu
python=$1 cmake=$2 tree=$3 venv=$4
root=$(cd "$(dirname "$0")/.." && pwd)
requirements=$root/tools/python-requirements.txt
work=$tree/python

mkdir -p "$work"
if ! { "$python" --version && cat "$requirements"; } | cmp -s - "$venv/made-of"; then
  rm -rf "$venv"
  "$python" -m venv "$venv" || { echo "can't make a virtual environment: install the Debian package python3-venv" >&2; exit 1; }
  "$venv/bin/python" -m pip install -q -r "$requirements" ||
    { echo "can't install what tests/python need: pip must reach a package index once" >&2; exit 1; }
  { "$python" --version && cat "$requirements"; } >"$venv/made-of"
fi

"$cmake" --install "$tree" --prefix "$work/prefix" >/dev/null
rm -f "$work"/wheel/*.whl
"$venv/bin/python" -m pip wheel -q --no-build-isolation --no-deps --wheel-dir "$work/wheel" \
  --config-settings=build-dir="$work/build-{wheel_tag}" --config-settings=cmake.source-dir=python \
  --config-settings=cmake.define.quantport_ROOT="$work/prefix" --config-settings=cmake.define.QUANTPORT_WERROR=ON "$root"
"$venv/bin/python" -m pip install -q --no-deps --force-reinstall "$work"/wheel/quantport-*.whl
