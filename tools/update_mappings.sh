#!/bin/sh
# Makes data/mappings/transformers-VERSION.json and data/quantizers/transformers-VERSION.json, which are then built in, and
# holds the mapping against that transformers.
#
#     tools/update_mappings.sh VERSION [PYTHON]
#
# In a virtual environment of its own, .venv-VERSION. With PYTHON, that interpreter's packages (torch above all) are used
# where they are there, and only transformers is installed. With build/release/quantport there, the program is held
# against transformers too: build it again after the first run, which adds the version to it.
set -eu
[ $# -ge 1 ] || { sed -n '2,10s/^# \{0,1\}//p' "$0" >&2; exit 2; }
version=$1
cd "$(dirname "$0")/.."
venv=.venv-$version
if [ ! -x "$venv/bin/python" ]; then
  "${2:-python3}" -m venv "$venv"
  if [ $# -ge 2 ]; then
    "$2" -c 'import sysconfig; print(sysconfig.get_path("purelib"))' >"$("$venv/bin/python" -c \
      'import sysconfig; print(sysconfig.get_path("purelib"))')/shared.pth"
    "$venv/bin/python" -m pip install -q --no-deps "transformers==$version"
  else
    sed "s/^transformers==.*/transformers==$version/" tools/oracle-requirements.txt >"$venv/requirements.txt"
    "$venv/bin/python" -m pip install -q -r "$venv/requirements.txt"
  fi
fi
mapping=data/mappings/transformers-$version.json
program=build/release/quantport
"$venv/bin/python" tools/generate_mappings.py --output "$mapping"
"$venv/bin/python" tools/generate_quantizers.py --output "data/quantizers/transformers-$version.json"
if [ -x "$program" ] && "$program" rules samples/minimax-m3-tiny/hub --transformers "$version" >/dev/null 2>&1; then
  "$venv/bin/python" tools/check_mappings.py --program "$program"
else
  "$venv/bin/python" tools/check_mappings.py
  echo "build quantport and run this again to hold the program against transformers $version too"
fi
