"""Runs one command on one golden with one tensor changed, and says what kind of outcome that is.

Good: `value`, the numbers that the oracle reads; `refused`, with an error that names the module; `carried`, the bytes as they were,
with a warning that names the module. Everything else is bad:
  LEFT-QUANTIZED  success, and codes or scales are left where numbers, or those of a recipe, should be
  WRONG-NUMBERS   success with other numbers, or numbers where nothing can be read
  OUTSIDE-TENSOR  the same, and the numbers change with the tensors that lie around
  VERIFY-BLIND    "verified" of what does not fit, or a difference that diff does not show
  SILENT-CARRY    what does not fit is carried, or shown as its format, without a word
  UNNAMED         a refusal that does not say which module
  CRASH           a signal, a hang, or an exit status that means nothing
"""
import json
import math
import os
import re
import shutil
import struct
import subprocess

import goldens
import oracle
from dtypes import FLOATS, Tensor, count, decode
from program import PROGRAM, read_checkpoint, safetensors, write

GOOD = ("value", "refused", "carried")
BAD = ("LEFT-QUANTIZED", "WRONG-NUMBERS", "OUTSIDE-TENSOR", "VERIFY-BLIND", "SILENT-CARRY", "UNNAMED", "CRASH")
COMMANDS = ("inspect", "verify", "diff", "revert", "apply", "dequantize", "quantize")
# Tensors before and behind the changed one, so that a read outside of it finds numbers that can be told.
GUARD = 4096
# What `apply` calls the fused weight: without the base model's prefix, which no tensor of the hub has here.
APPLIED = "layers.0.attn.qkv"
MEMORY = "/dev/shm" if os.path.isdir("/dev/shm") else None
MAX_F32 = 3.4028235677973366e38


def single(value):
    """As F32 holds it: what is too large becomes infinite."""
    if math.isnan(value) or abs(value) < MAX_F32:
        return value
    return math.copysign(math.inf, value)


def close(got, want):
    """Equal but for roundings: products of several scales are rounded in an order of the implementation."""
    want = single(want)
    if math.isnan(want) or math.isinf(want):
        return math.isnan(got) == math.isnan(want) and (math.isnan(got) or got == want)
    return abs(got - want) <= 2e-6 * abs(want) + 1e-37


def positions(shape):
    """Every row at some columns, every column in some rows."""
    rows, columns = shape[-2:]
    some_rows, some_columns = {0, 1, rows // 3, rows // 2, rows - 2, rows - 1}, {0, 1, 2, columns // 2 + 1, columns - 1}
    for outer in range(count(shape[:-2])):
        front = () if len(shape) == 2 else (outer,)
        for row in range(rows):
            for column in (range(columns) if row in some_rows else sorted(some_columns)):
                if 0 <= column < columns:
                    yield (*front, row, column)


def offset(shape, index):
    at = 0
    for size, i in zip(shape, index, strict=True):
        at = at * size + i
    return at


class Case:
    """A golden's export, or its hub checkpoint, with one tensor of a module changed."""

    def __init__(self, golden, module, name, variant, folder, from_hub=False):
        self.golden, self.module, self.name, self.folder = golden, module, name, folder
        self.original = golden.hub if from_hub else golden.export
        self.tensors = dict(self.original)
        if variant is not None:
            self.tensors[name] = variant
        self.reading = golden.read(self.tensors, module)
        before = golden.read_original(module, from_hub)
        parts = goldens.parts_of(self.tensors, module)
        self.fits = self.reading is not None and oracle.conforms(parts)
        self.same_shape = self.fits and self.reading.shape == before.shape
        self.shape = before.shape
        self.write(self.path("in"), 1000.0)

    def path(self, name):
        return f"{self.folder}/{name}"

    def write(self, folder, guard):
        """The changed tensor between two guards, then the rest."""
        body = struct.pack("<f", guard) * GUARD
        rest = [(name, *tensor) for name, tensor in self.tensors.items() if name != self.name]
        changed = [(self.name, *self.tensors[self.name])] if self.name else []
        tensors = [("guard.before", "F32", [GUARD], body), *changed, ("guard.behind", "F32", [GUARD], body), *rest]
        shutil.rmtree(folder, ignore_errors=True)
        write(f"{folder}/config.json", self.golden.config)
        for name, content in self.golden.extra.items():
            write(f"{folder}/{name}", content)
        write(f"{folder}/model.safetensors", safetensors(tensors))

    def run(self, *args):
        shutil.rmtree(self.path("out"), ignore_errors=True)
        try:
            return subprocess.run([os.path.abspath(PROGRAM), *args], capture_output=True, text=True, timeout=60, cwd=self.folder)
        except subprocess.TimeoutExpired:
            return subprocess.CompletedProcess(args, -9, "", "")

    def written(self):
        return {name: Tensor(*tensor) for name, tensor in read_checkpoint(self.path("out")).items()}

    def names(self):
        """What a message may call the module: its own name, its names on the other side, or a part's."""
        hub = [name for name, _, _ in goldens.hub_parts(self.module, self.shape)] if self.original is self.golden.export else []
        return [self.module, *hub, *([] if hub else [APPLIED])]

    def said(self, result, kind="error|warning"):
        lines = [line for line in (result.stderr + result.stdout).splitlines() if re.match(rf"({kind}): ", line)]
        return any(name in line for line in lines for name in self.names())

    def refusal(self, result, unchanged_refused=False):
        """Of a command that has not succeeded."""
        if result.returncode not in (1, 2, 3):
            return "CRASH"
        return "refused" if self.said(result, "error") or unchanged_refused else "UNNAMED"

    def outside(self, args, tensors):
        """Whether the result's numbers come from the tensors around."""
        self.write(self.path("in"), -3.0)
        result = self.run(*args)
        changed = result.returncode != 0 or any(
            tensor != tensors.get(name) for name, tensor in self.written().items() if not name.startswith("guard."))
        self.write(self.path("in"), 1000.0)
        return "OUTSIDE-TENSOR" if changed else "WRONG-NUMBERS"


def inspect(case):
    result = case.run("inspect", "in", "--json")
    if result.returncode not in (0, 1) or not result.stdout:
        return case.refusal(result)
    report = json.loads(result.stdout)
    named = any(case.module in json.dumps(report.get(key, [])) for key in ("warnings", "problems"))
    if result.returncode == 1:
        return "refused" if named else "UNNAMED"
    layouts = {module["name"]: module["layout"] for module in report["modules"]}
    if case.fits:
        return "value"
    shown = [layout for name, layout in layouts.items() if name.startswith(case.module)]
    odd = shown and all(layout in ("other", "unrecognized") for layout in shown)
    return "carried" if odd or named or case.said(result) else "SILENT-CARRY"


def verify(case):
    guards = [(f"guard.{place}", "F32", [GUARD], bytes(4 * GUARD)) for place in ("before", "behind")]
    plain = [(name, *tensor) for name, tensor in case.golden.reference().items()]
    write(case.path("reference/model.safetensors"), safetensors(guards + plain))
    result = case.run("verify", "in", "--reference", "reference", "--mapping", goldens.MAPPING)
    if result.returncode != 0:
        return case.refusal(result)
    return "value" if case.same_shape else "VERIFY-BLIND"


def diff(case):
    changed, case.tensors = case.tensors, case.original
    case.write(case.path("unchanged"), 1000.0)
    case.tensors = changed
    result = case.run("diff", "unchanged", "in", "--all")
    if result.returncode not in (0, 1):
        return "CRASH"
    equal = case.tensors == case.original
    shown = case.name and case.name in result.stdout + result.stderr
    return "value" if equal == (result.returncode == 0) and (equal or shown) else "VERIFY-BLIND"


def same(reading, parts):
    """Whether parts, as (their reading or None, the index in the whole, the shape they should have), are the whole's."""
    return all(part is not None and part.shape == list(shape)
               and all(close(part.at(*index), reading.at(*whole(*index))) for index in positions(shape))
               and part.rest == reading.rest for part, whole, shape in parts)


def carried(case, result, parts_are_right):
    """Of revert and apply, which move names and never numbers."""
    if case.reading is not None:
        if not parts_are_right:
            return "WRONG-NUMBERS"
        return "value" if case.fits or case.said(result, "warning") else "SILENT-CARRY"
    kept = case.tensors[case.name] in case.written().values()
    if not kept:
        return "WRONG-NUMBERS"
    return "carried" if case.said(result, "warning") else "SILENT-CARRY"


def revert(case):
    result = case.run("revert", "in", "-o", "out", "--mapping", goldens.MAPPING)
    if result.returncode != 0:
        return case.refusal(result)
    out = case.written()
    parts_are_right = False
    if case.reading is not None:
        parts = goldens.hub_parts(case.module, case.reading.shape)
        parts_are_right = same(case.reading, [(case.golden.read(out, name), whole, shape) for name, whole, shape in parts])
    return carried(case, result, parts_are_right)


def apply(case):
    """On the hub's q, which becomes a third of the fused weight, with k and v as they were."""
    result = case.run("apply", "in", "-o", "out", "--mapping", goldens.MAPPING)
    if result.returncode != 0:
        return case.refusal(result)
    parts_are_right = False
    if case.reading is not None:
        fused = case.golden.read(case.written(), APPLIED)
        whole = [case.golden.read(case.tensors, f"{goldens.HUB}.attn.{name}") for name in "qkv"]
        rows = [(part, row) for part in whole for row in range(part.shape[0])]
        width = {part.shape[1] for part in whole}
        parts_are_right = fused is not None and width == {fused.shape[1]} and fused.shape[0] == len(rows) and all(
            close(fused.at(row, column), rows[row][0].at(rows[row][1], column)) for row, column in positions(fused.shape))
    return carried(case, result, parts_are_right)


def dequantize(case):
    args = ("dequantize", "in", "-o", "out")
    result = case.run(*args)
    if result.returncode != 0:
        return case.refusal(result, case.golden.name in UNREADABLE)
    out = case.written()
    own = goldens.part_name(case.module, "weight")
    left = [name for name in out if name.startswith(case.module) and name != own]
    plain = out.get(own)
    if left or plain is None or plain.dtype not in FLOATS:
        return "LEFT-QUANTIZED"
    reading = case.reading
    if reading is not None and plain.shape == list(reading.shape):
        numbers = decode(plain)
        if all(close(numbers[offset(plain.shape, index)], reading.at(*index)) for index in positions(plain.shape)):
            return "value"
    return case.outside(args, out)


def rows_of_int8(out, module, reading):
    """Whether the result of int8_weight_only is the reading's, in some of its rows."""
    codes, scales = out.get(f"{module}.weight"), out.get(f"{module}.weight_scale")
    if reading is None or codes is None or scales is None or codes.dtype != "I8" or codes.shape != list(reading.shape):
        return False
    if scales.dtype != "F32" or scales.shape != [codes.shape[0]]:
        return False
    (rows, columns), values, scales = codes.shape, decode(codes), decode(scales)
    for row in {0, 1, rows // 2, rows - 1} & set(range(rows)):
        numbers = [single(reading.at(row, column)) for column in range(columns)]
        if not all(map(math.isfinite, numbers)) or max(map(abs, numbers)) in (0.0, math.inf):
            continue  # what a scale should be is the recipe's affair
        scale = max(map(abs, numbers)) / 127
        if abs(scales[row] - scale) > 1e-5 * scale and scale > 1e-36:
            return False
        if any(abs(values[row * columns + i] * scale - number) > 0.5001 * scale for i, number in enumerate(numbers)):
            return False
    return True


def quantize(case):
    args = ("quantize", "in", "-o", "out", "--recipe", "int8_weight_only")
    result = case.run(*args)
    if result.returncode != 0:
        return case.refusal(result, case.golden.name in UNREADABLE or case.golden.name in STACKED)
    out = case.written()
    if rows_of_int8(out, case.module, case.reading):
        return "value"
    before = goldens.parts_of(case.tensors, case.module)
    if any(tensor in before.values() for tensor in goldens.parts_of(out, case.module).values()):
        return "LEFT-QUANTIZED"
    return case.outside(args, out)


# Formats whose values the program does not read: each is refused by its name, unchanged too.
UNREADABLE = ("bnb-fp4", "bnb-int8", "bnb-nf4", "modelopt-nvfp4-svd", "modelopt-w4a8-awq", "quark-int4")
# Stacked experts are not quantized anew.
STACKED = ("fine-grained-fp8", "fine-grained-fp8-ue8m0", "gpt-oss-mxfp4")


def outcome(command, case):
    return globals()[command](case)
