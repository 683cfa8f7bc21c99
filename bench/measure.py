#!/usr/bin/env python3
"""Run a command and record what it cost, as JSON: wall, CPU, peak memory, and bytes read and written.

    python3 -I -S bench/measure.py RESULT.json DIR COMMAND [ARGUMENT...]

A process of its own, because Linux adds the I/O of a child to its parent's /proc/self/io when the parent has waited for
it (grandchildren included), and hands a parent's peak memory on to what it starts: a small parent keeps both clean.
Peaks below this process's own, about 10 MB, can't be told apart.

read_bytes and write_bytes count what goes to the storage layer: pages read from the disk, not from the page cache, and
pages made dirty. They also hold what the kernel reads ahead. They do not count what passes through no page: fallocate
(INSERT_RANGE in a file of 32 MB counts 0 bytes, on ext4 and xfs), FICLONERANGE (0 bytes on xfs), copy_file_range where
the file system answers it with shared extents (0 on xfs; rchar and wchar hold it), and the file system's metadata and
journal, which kernel threads write. So device_read and device_written are recorded too: what the disk under DIR was
asked for meanwhile, by whomever. On a quiet machine that is the command and the file system together. They are null
where the file system has no disk of its own, and all counts where the kernel keeps none.
"""

import json
import os
import sys
import time

FIELDS = ("rchar", "wchar", "read_bytes", "write_bytes")
SECTOR = 512  # the unit of /sys/dev/block/*/stat, whatever the disk's own is


def io_counters():
    try:
        with open("/proc/self/io", encoding="ascii") as file:
            counters = dict(line.split(": ") for line in file)
    except OSError:
        return {}
    return {field: int(counters[field]) for field in FIELDS}


def device_counters(directory):
    device = os.stat(directory).st_dev
    try:
        with open(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/stat", encoding="ascii") as file:
            fields = file.read().split()
    except FileNotFoundError:
        return {}
    return {"device_read": int(fields[2]) * SECTOR, "device_written": int(fields[6]) * SECTOR}


def main():
    result, directory, command = sys.argv[1], sys.argv[2], sys.argv[3:]
    before = {**io_counters(), **device_counters(directory)}
    start = time.monotonic()
    child = os.posix_spawnp(command[0], command, os.environ)
    _, status, usage = os.wait4(child, 0)
    wall = time.monotonic() - start
    after = {**io_counters(), **device_counters(directory)}
    cost = dict.fromkeys((*FIELDS, "device_read", "device_written"))
    cost.update((field, after[field] - before[field]) for field in before)
    cost.update(status=os.waitstatus_to_exitcode(status), wall=wall, user=usage.ru_utime, system=usage.ru_stime,
                peak_rss=usage.ru_maxrss * 1024)
    with open(result, "w", encoding="ascii") as file:
        json.dump(cost, file)


if __name__ == "__main__":
    main()
