#!/bin/sh
# demo.sh PROGRAM: the main job on the sample in this repository, before and after.
set -eu
program=$1
root=$(cd "$(dirname "$0")/.." && pwd)
sample="$root/samples/minimax-m3-tiny"
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

names() {  # names FOLDER PATTERN...: a few tensor names of a checkpoint
  folder=$1; shift
  "$program" inspect "$folder" --json | python3 -c '
import json, re, sys
modules = json.load(sys.stdin)["modules"]
for pattern in sys.argv[1:]:
    hits = [m for m in modules if re.search(pattern, m["name"])]
    for m in hits[:2]:
        print("   ", m["name"].ljust(72), m["layout"].ljust(12), ", ".join(t.split()[0] for t in m["tensors"]))
' "$@"
}

echo "A quantized export of a tiny MiniMax-M3 (ModelOpt, NVFP4 experts, FP8 KV cache), with in-memory names:"
names "$sample/export" 'layers\.1\.mlp\.experts\.0\.' 'layers\.1\.mlp\.shared_experts\.gate_up' 'layers\.1\..*k_proj$' '^lm_head'
echo
echo "\$ quantport revert export -o reverted --reference hub"
"$program" revert "$sample/export" -o "$out/reverted" --reference "$sample/hub"
echo
echo "The same tensors under the names of the hub checkpoint:"
names "$out/reverted" 'layers\.1\.block_sparse_moe\.experts\.0\.w[12]' 'layers\.1\..*shared_experts\.(gate|up)_proj' 'layers\.1\..*k_proj$' 'lm_head'
echo
echo "\$ quantport verify reverted --reference hub"
"$program" verify "$out/reverted" --reference "$sample/hub"
