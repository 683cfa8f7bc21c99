#!/bin/sh
# Installs what building and testing need, from the distribution; does nothing where all of it is there.
set -eu
packages="cmake ninja-build g++ pkg-config python3 git libfmt-dev libabsl-dev libhwy-dev libcli11-dev nlohmann-json3-dev libsimdjson-dev
  libpcre2-dev libyaml-cpp-dev zlib1g-dev libgtest-dev libgmock-dev"
case "${1:-}" in
  python | conformance) packages="$packages python3-dev python3-venv" ;;
  bench) packages="$packages libbenchmark-dev" ;;
  xfs) packages="$packages xfsprogs mount" ;;
  lint) packages="$packages clang-format-14" ;;
  fuzz) packages="$packages clang-16" ;;
esac
missing=""
for package in $packages; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q '^install ok' || missing="$missing $package"
done
[ -z "$missing" ] && exit 0
sudo=""
if [ "$(id -u)" -ne 0 ]; then
  command -v sudo >/dev/null || { echo "these packages are missing, and only root can install them:$missing" >&2; exit 1; }
  sudo=sudo
fi
$sudo apt-get update -q
# shellcheck disable=SC2086
$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $missing
