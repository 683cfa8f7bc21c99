#!/bin/sh
# differential.sh TESTS ELEMENTS JOBS: holds the SIMD kernels against the scalar ones on ELEMENTS random elements for
# each kernel, type of weights and target of this processor, in JOBS processes.
set -eu
tests=$1 elements=$2 jobs=$3
export GTEST_TOTAL_SHARDS="$jobs" QUANTPORT_DIFFERENTIAL_ELEMENTS="$elements"
running=""
shard=0
while [ "$shard" -lt "$jobs" ]; do
  GTEST_SHARD_INDEX=$shard "$tests" --gtest_filter='*QuantizeDifferentialTest*' >"$tests.differential.$shard.log" 2>&1 &
  running="$running $!"
  shard=$((shard + 1))
done
status=0
for process in $running; do wait "$process" || status=1; done
cat "$tests".differential.*.log | grep -E '^\[ +(OK|FAILED) +\]|^\[==========\].*ran|Failure' | sort | uniq
exit "$status"
