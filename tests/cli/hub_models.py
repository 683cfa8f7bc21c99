"""The hub checkpoints of tests/golden/quantize, rebuilt: values follow from names, as that folder's README says."""
import array
import json
import os
import zlib

from program import ROOT, write_checkpoint

GOLDENS = f"{ROOT}/tests/golden/quantize"
MODELS = sorted(name for name in os.listdir(GOLDENS) if os.path.isdir(f"{GOLDENS}/{name}"))


def mix(x):
    x ^= x >> 16
    x = (x * 0x7FEB352D) & 0xFFFFFFFF
    x ^= x >> 15
    x = (x * 0x846CA68B) & 0xFFFFFFFF
    return x ^ (x >> 16)


def fill(name, shape):
    """The BF16 bytes of a tensor."""
    seed = zlib.crc32(name.encode())
    count = 1
    for size in shape:
        count *= size
    columns = shape[-1] if shape else 1
    values = array.array("H", bytes(2 * count))
    multiplier = 64 + ((seed >> 8) & 63)
    for row in range(count // columns):
        exponent = 118 + (seed & 3) - (mix((seed + row * 40503) & 0xFFFFFFFF) & 3)
        for i in range(row * columns, (row + 1) * columns):
            x = mix((seed + i * 2654435761) & 0xFFFFFFFF)
            values[i] = ((x >> 31) << 15) | ((exponent + ((x >> 8) & 3)) << 7) | ((x & 127) * multiplier) >> 7
    return values.tobytes()


def load(*path):
    with open("/".join((GOLDENS, *path)), encoding="utf-8") as f:
        return json.load(f)


def write_hub(model, folder, shards=1):
    """The model's checkpoint, in several files with an index where `shards` says so. Returns name -> bytes."""
    return write_tensors(load(model, "checkpoint.json"), folder, shards)


def write_tensors(checkpoint, folder, shards=1):
    """The same of what a golden says of a checkpoint."""
    tensors = [(name, dtype, shape, fill(name, shape)) for name, dtype, shape in checkpoint["tensors"]]
    write_checkpoint(folder, checkpoint["config"].encode(), tensors, shards)
    return {tensor[0]: tensor[3] for tensor in tensors}
