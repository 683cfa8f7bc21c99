#!/usr/bin/env python3
"""Run a command and record what it cost, as JSON: wall, CPU, peak memory, and bytes read and written.

    python3 -I -S bench/measure.py RESULT.json COMMAND [ARGUMENT...]

A process of its own, because Linux adds the I/O of a child to its parent's /proc/self/io when the parent has waited for
it (grandchildren included), and hands a parent's peak memory on to what it starts: a small parent keeps both clean.
Peaks below this process's own, about 10 MB, can't be told apart.

read_bytes and write_bytes count what goes to the storage layer: pages read from the disk, not from the page cache, and
pages made dirty. They also hold what the kernel reads ahead.
"""

import json
import os
import sys
import time

FIELDS = ("rchar", "wchar", "read_bytes", "write_bytes")


def io_counters():
    with open("/proc/self/io", encoding="ascii") as file:
        counters = dict(line.split(": ") for line in file)
    return {field: int(counters[field]) for field in FIELDS}


def main():
    result, command = sys.argv[1], sys.argv[2:]
    before = io_counters()
    start = time.monotonic()
    child = os.posix_spawnp(command[0], command, os.environ)
    _, status, usage = os.wait4(child, 0)
    wall = time.monotonic() - start
    after = io_counters()
    cost = {field: after[field] - before[field] for field in FIELDS}
    cost.update(status=os.waitstatus_to_exitcode(status), wall=wall, user=usage.ru_utime, system=usage.ru_stime,
                peak_rss=usage.ru_maxrss * 1024)
    with open(result, "w", encoding="ascii") as file:
        json.dump(cost, file)


if __name__ == "__main__":
    main()
