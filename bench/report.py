"""What run.py and scaling.py write: tables, and on what they were measured."""

import os
import platform
import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COMPARISON, SCALING = "bench/run.py", "bench/scaling.py"  # whose part of the page
KERNELS = "bench/quantize_kernels.py"
BASELINES = ["cp", "python"]
MEASURING_MB = 11  # peak memory of measure.py itself, which no child can fall below


def field_of(path, pattern):
    match = re.search(pattern, Path(path).read_text(encoding="utf-8"), re.MULTILINE)
    return match.group(1).strip() if match else "unknown"


def machine():
    memory = int(field_of("/proc/meminfo", r"^MemTotal:\s+(\d+)")) * 1024
    kernel = re.match(r"[\d.]+", platform.release()).group()
    return (f"{field_of('/proc/cpuinfo', r'^model name.*: (.*)$')}, {len(os.sched_getaffinity(0))} cores, "
            f"{memory / 2**30:.0f} GiB of memory, Linux {kernel}; load average before the run {os.getloadavg()[0]:.1f}")


def first_line(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[0]


def versions(options):
    python = first_line(str(options.python), "-c", "import platform, safetensors, torch; "
                        "print('Python', platform.python_version(), 'with safetensors', safetensors.__version__, "
                        "'and torch', torch.__version__)")
    program = first_line(str(options.program), "--version")
    return f"quantport {program}; {first_line('cp', '--version')}; {python}"


def gigabytes(size):
    return f"{size / 1e9:g}GB" if size >= 10**9 else f"{size / 1e6:g}MB"


def command_line(script, options, *arguments):
    """The command of this run. Folders of the machine are no part of it."""
    program = options.program
    program = program.relative_to(ROOT) if program.is_relative_to(ROOT) else "PROGRAM"
    output = ["--output", options.output] if options.output and not options.output.is_absolute() else []
    words = ["python3", script, *arguments, "--program", program, "--workdir", "DIR", *output]
    return " ".join(str(word) for word in words)


def number(value):
    """Three digits that mean something, or all of a large number's, or three after the point."""
    if value is None:
        return "-"
    digits = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 3
    return f"{value:.{digits}f}"


def megabytes(value):
    return number(None if value is None else value / 1e6)


def wall(runs):
    return f"{number(runs.median('wall'))} ({number(min(runs.walls()))} to {number(max(runs.walls()))})"


def peak(runs):
    value = runs.median("peak_rss") / 1e6
    return f"{value:.0f}" if value > MEASURING_MB else f"below {MEASURING_MB}"


def costs(runs):
    """The cells that both tables end with."""
    return [
        f"{runs.median('user'):.2f} + {runs.median('system'):.2f}",
        peak(runs),
        megabytes(runs.median("read_bytes")),
        megabytes(runs.median("write_bytes")),
        megabytes(runs.median("device_written")),
    ]


COST_COLUMNS = ["CPU s: user + system", "peak memory MB", "read MB", "written MB", "written by the disk MB"]


def table(columns, text_columns, rows):
    return ["| " + " | ".join(columns) + " |",
            "|" + "---|" * text_columns + "---:|" * (len(columns) - text_columns),
            *("| " + " | ".join(row) + " |" for row in rows)]


def bytes_of(directory):
    return sum(path.stat().st_size for path in directory.iterdir())


def comparison_row(bench, mode, state):
    head = [mode.name, mode.place.label, state]
    if mode.place.missing:
        return head + ["not measured", *["-"] * 9]
    runs = bench.results[mode.key, state]
    seconds = runs.median("wall")
    ratios = [seconds / bench.results[key, state].median("wall") for key in BASELINES]
    return head + [str(len(runs.costs)), wall(runs), number(bytes_of(bench.disk.export) / seconds / 1e9),
                   *map(number, ratios), *costs(runs)]


def bounds(bench):
    """How far the modes that move no data are from those that do, in the cold state."""
    size = bytes_of(bench.disk.export)
    python = bench.results["python", "cold"].median("wall")
    for mode in bench.possible:
        if mode.key not in ("in-place", "in-place-xfs", "reflink"):
            continue
        runs = bench.results[mode.key, "cold"]
        written, device = runs.median("write_bytes"), runs.median("device_written")
        by_disk = "" if device is None else f", as the disk counts {100 * device / size:.3f} %,"
        share = 100 * runs.median("wall") / python
        yield (f"- {mode.name.capitalize()} on {mode.place.label}, cold: {100 * written / size:.3f} % of the export's "
               f"bytes written{by_disk} in {share:.2f} % of the Python path's wall.")


def notes(bench):
    """What one has to know to read the table."""
    in_place = "In place changes a copy that the clock does not see being made: what cp of the same round wrote"
    if bench.xfs.missing:
        yield f"- {in_place}."
        yield f"- Not measured on {bench.xfs.label}: {bench.xfs.missing}."
    else:
        yield f"- {in_place}; on xfs a clone."
        yield (f"- {bench.xfs.label}: a sparse image on the same disk, mounted through a loop device with direct I/O. "
               "Ratios there are to cp and Python on the disk itself.")
    yield "- GB/s: the export's size by the wall time, whatever was moved."
    yield ("- Read and written: the process's own (/proc/self/io), without fallocate, shared extents and the file "
           "system's metadata. The disk's count holds those, and whatever else wrote; for xfs it is the loop device's.")
    yield f"- Cold: {bench.caches.how}, then the programs read again. Warm: what is to be read was just read."


def comparison(bench, machine_text):
    options, contents = bench.options, bench.contents
    shards = len(list(bench.disk.export.glob("*.safetensors")))
    columns = ["mode", "on", "cache", "runs", "wall s: median (range)", "GB/s", "of cp", "of Python", *COST_COLUMNS]
    ordered = sorted(bench.modes, key=lambda mode: mode.key in BASELINES)
    command = command_line(
        COMPARISON, options, "--size", gigabytes(options.size), "--cold-runs", options.cold_runs.text, "--warm-runs",
        options.warm_runs.text, "--python", "PYTHON")
    before, after = len(contents["export"]), len(contents["copy"])
    lines = [
        f"Export: {bytes_of(bench.disk.export) / 1e9:.2f} GB in {shards} {'shards' if shards > 1 else 'file'}, "
        f"{before} tensors, which become {after}. Medians of runs that were interleaved.",
        "",
        *table(columns, 3, [comparison_row(bench, mode, state) for state in bench.counts for mode in ordered]),
        "",
        *bounds(bench),
        *notes(bench),
        f"- Checked before measuring: all {after} tensors of the copy and the Python path are equal in name, dtype, "
        "shape and bytes; those of every other mode of quantport are the copy's, and cp's are the export's.",
        f"- Machine: {machine_text}.",
        f"- Versions: {versions(options)}.",
        f"- Command: `{command}`",
    ]
    return "\n".join(lines)


def scaling(series, missing, machine_text, caches, options):
    """`series`: (heading, rows of (export, mode, runs)). `missing`: why nothing was measured on xfs, or empty."""
    columns = ["mode", "on", "data", "GB", "shards", "tensors", "wall s: median (range)", "us a tensor", *COST_COLUMNS]
    lines = []
    for heading, measured in series:
        rows = [[mode.name, mode.place.label, export.data, f"{export.total / 1e9:.2f}", str(export.shards),
                 str(export.tensors), wall(runs), number(runs.median("wall") / export.tensors * 1e6), *costs(runs)]
                for export, mode, runs in measured]
        lines += [heading, "", *table(columns, 3, rows), ""]
    command = command_line(
        SCALING, options, "--sizes", options.sizes.text, "--random", options.random.text, "--layers", options.layers,
        "--fixed-size", gigabytes(options.fixed_size), "--tensor-layers", options.tensor_layers.text,
        "--runs", options.runs)
    if missing:
        lines.append(f"- Not measured on xfs: {missing}.")
    lines += [
        f"- Machine: {machine_text}. quantport {first_line(str(options.program), '--version')}.",
        f"- Cold: {caches.how}, then the program read again. Medians of {options.runs} runs.",
        "- Holes: the file system has no extents for the data, which read as zeros. Random: every byte was written.",
        "- In place changes a copy that was made before the clock started.",
        "- Checked: every run ends with the same names, dtypes and shapes, whichever the mode, and all bytes of data.",
        f"- Command: `{command}`",
    ]
    return "\n".join(lines)


def markers(script):
    return f"<!-- generated by {script}: begin -->", f"<!-- generated by {script}: end -->"


def replace_generated(path, script, text):
    """Puts `text` between the script's markers in `path`; what is written around them stays."""
    begin, end = markers(script)
    old = path.read_text(encoding="utf-8") if path.exists() else f"# Benchmarks\n\n{begin}\n{end}\n"
    if begin not in old or end not in old:
        raise SystemExit(f"error: {path} lacks the markers {begin} and {end}")
    head, rest = old.split(begin, 1)
    path.write_text(f"{head}{begin}\n{text}\n{end}{rest.split(end, 1)[1]}", encoding="utf-8")
