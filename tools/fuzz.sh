#!/bin/sh
# fuzz.sh FOLDER SECONDS: runs every fuzz target in FOLDER for SECONDS, from a copy of its saved inputs.
set -eu
folder=$1 seconds=$2
root=$(dirname "$(dirname "$0")")
for target in "$folder"/*_fuzz; do
  name=$(basename "$target")
  work="$folder/work-$name"
  mkdir -p "$work"
  cp -r "$root/fuzz/corpus/$name/." "$work/"
  echo "fuzzing $name for $seconds s"
  "$target" -max_total_time="$seconds" -rss_limit_mb=4096 -max_len=65536 -print_final_stats=0 "$work" >"$work.log" 2>&1 ||
    { tail -40 "$work.log"; exit 1; }
  grep -c . "$work.log" >/dev/null && tail -1 "$work.log"
done
