"""What the producers' own libraries read from the stored parts of a weight: decoders of our own, one for each format.

A scale means the number its dtype says, whatever float that is. One that is a single number is broadcast, as torch does; all
others must have exactly the shape that the weight and the config give them. Where a library would fail, or give numbers
that depend on how it is called, there is no reading.

Held to compressed-tensors 0.20.0 (`decompress` of each format's compressor, torch 2.13.0) on all its goldens and variants:
where both read, the numbers are the same, but for
- F8_E8M0 scales of MX formats, whose numbers it takes for exponents; here U8 and F8_E8M0 are the same bytes, as ModelOpt,
  Quark and transformers have them.
It reads besides what contradicts the config or the checkpoint itself, which is no reading here: one scale for all groups,
dimensions of 1 around a scale, longer rows of words than `weight_shape` fills, a weight of one element. It takes one scale
of shape [1] or [] for all rows (`strategy: tensor`), also in a scheme per channel. It fails on one of [out] against [out, in],
which ModelOpt and Quark have, and which means the same here. Integer scales it multiplies in integers. It unpacks I32 alone;
GPTQ, AutoAWQ and Quark unpack words of 32 bits; here U32 are the same bytes.
ModelOpt's tensor classes and transformers' fine-grained FP8 multiply by a scale that is reshaped by the block size.
"""
import json
import math
from collections import namedtuple

from dtypes import E2M1, FLOATS, REAL, TABLES, count, decode

# `at(row, column)`, with the expert before them where there are any; `rest`: parts that do not touch the values.
Reading = namedtuple("Reading", "shape at rest")
AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
WORDS, BYTES = ("I32", "U32"), ("U8", "I8")
SCALES = {*FLOATS, *TABLES}
ACTIVATIONS = {"input_scale", "input_global_scale", "activation_scale", "output_scale"}


class NoReading(Exception):
    pass


def need(condition):
    if not condition:
        raise NoReading


def cdiv(a, b):
    return -(-a // b)


def reals(part, dtypes=REAL):
    need(part is not None and part.dtype in dtypes)
    return decode(part)


def scalar(part, dtypes=SCALES):
    values = reals(part, dtypes)
    need(len(values) == 1)
    return values[0]


def tiles(part, shapes, height, width, across, dtypes=SCALES):
    """A scale for each tile of `height` x `width`, `across` of them side by side; `shapes` are those it may have."""
    need(part is not None and part.shape in shapes)
    values = reals(part, dtypes)
    return lambda row, column: values[row // height * across + column // width]


def scale_of(part, strategy, shape, size, dtypes=SCALES):
    """By compressed-tensors' names of strategies. `size`: of a group, or the two of a block."""
    rows, columns = shape
    if part is not None and count(part.shape) == 1 and strategy not in ("group", "exponents"):
        value = scalar(part, dtypes)
        return lambda row, column: value
    if strategy == "tensor":
        raise NoReading
    if strategy == "channel":
        return tiles(part, ([rows], [rows, 1]), 1, columns, 1, dtypes)
    if strategy == "block":
        down, across = cdiv(rows, size[0]), cdiv(columns, size[1])
        return tiles(part, ([down, across], [down, 1, across, 1]), *size, across, dtypes)
    need(size and columns % size == 0)
    if strategy == "exponents":
        need(part is not None and part.dtype in ("U8", "F8_E8M0"))
        part = part._replace(dtype="F8_E8M0")
    return tiles(part, ([rows, columns // size],), 1, size, columns // size, dtypes)


def bits_of(words, width, number):
    """The codes of `width` bits in words of 32, the first in the lowest bits, and across words."""
    stream = sum((word & 0xFFFFFFFF) << 32 * i for i, word in enumerate(words))
    return [stream >> width * i & (1 << width) - 1 for i in range(number)]


def fp4_codes(part):
    """(rows, columns, code of an element) of values two a byte."""
    need(part is not None and part.dtype in (*BYTES, "F4") and len(part.shape) == 2)
    rows, columns = part.shape
    columns *= 1 if part.dtype == "F4" else 2
    need(columns % 2 == 0)
    data, half = part.data, columns // 2
    return rows, columns, lambda row, column: data[row * half + column // 2] >> 4 * (column % 2) & 15


def e2m1(code):
    return -E2M1[code & 7] if code & 8 else E2M1[code & 7]


def smoothed(parts, shape, at):
    """With ModelOpt's pre_quant_scale, by which the inputs are multiplied."""
    if "pre_quant_scale" not in parts:
        return Reading(shape, at, None)
    factors = parts["pre_quant_scale"]
    need(factors.shape == [shape[1]] and factors.dtype in FLOATS)
    factors = decode(factors)
    return Reading(shape, lambda row, column: at(row, column) * factors[column], None)


# ---- formats. Each takes the parts by leaf and the settings of the config. --------------------------------------------


def numbers(parts, settings):
    """FP8 and INT8: numbers, times a scale."""
    weight = parts.get("weight")
    need(weight is not None and len(weight.shape) == 2)
    values, (rows, columns) = reals(weight, REAL - {"F4"}), weight.shape
    scale = parts.get("weight_scale", parts.get("weight_scale_inv"))
    scale = scale_of(scale, settings["strategy"], weight.shape, settings.get("size"))
    zero = parts.get("weight_zero_point")
    if zero is None:
        return smoothed(parts, [rows, columns], lambda row, column: values[row * columns + column] * scale(row, column))
    zero = scale_of(zero, settings["strategy"], weight.shape, settings.get("size"), REAL - SCALES)
    return smoothed(parts, [rows, columns],
                    lambda row, column: (values[row * columns + column] - zero(row, column)) * scale(row, column))


def fp4(parts, settings):
    """NVFP4 and MXFP4, of ModelOpt and compressed-tensors, and NVFP4 with low-rank factors."""
    rows, columns, code = fp4_codes(parts.get("weight", parts.get("weight_packed")))
    scale = scale_of(parts.get("weight_scale"), settings["strategy"], [rows, columns], settings["size"])
    outer = 1.0
    if settings.get("outer"):
        outer = scalar(parts.get(settings["outer"]))
        if settings["outer"] == "weight_global_scale":
            outer = 1 / outer if outer else math.inf
    reading = smoothed(parts, [rows, columns], lambda row, column: e2m1(code(row, column)) * (scale(row, column) * outer))
    if "svdquant_lora_a" not in parts:
        return reading
    a, b = parts["svdquant_lora_a"], parts["svdquant_lora_b"]
    need(len(a.shape) == 2 and a.dtype in FLOATS and b.dtype in FLOATS and a.shape[1] == columns
         and b.shape == [rows, a.shape[0]])
    low, high, rank = decode(a), decode(b), a.shape[0]
    return Reading([rows, columns], lambda row, column: reading.at(row, column) + sum(
        high[row * rank + i] * low[i * columns + column] for i in range(rank)), None)


def int4(parts, settings):
    """ModelOpt: two rows a byte."""
    weight = parts.get("weight")
    need(weight is not None and weight.dtype in BYTES and len(weight.shape) == 2)
    rows, columns = weight.shape[0] * 2, weight.shape[1]
    scale = scale_of(parts.get("weight_scale"), "group", [rows, columns], settings["size"])
    if "weight_scale_2" in parts:
        scalar(parts["weight_scale_2"])

    def at(row, column):
        nibble = weight.data[row // 2 * columns + column] >> 4 * (row % 2) & 15
        return (nibble - 16 if nibble > 7 else nibble) * scale(row, column)
    return smoothed(parts, [rows, columns], at)


def packed(parts, settings):
    """compressed-tensors' pack-quantized: the shape stands in a tensor of its own."""
    words, stated, bits = parts.get("weight_packed"), parts.get("weight_shape"), settings["bits"]
    need(words is not None and words.dtype in WORDS and stated is not None and stated.shape == [2])
    shape = reals(stated)
    need(all(0 <= size < 1 << 20 and size == int(size) for size in shape))
    rows, columns = map(int, shape)
    width = cdiv(columns * bits, 32)
    need(words.shape == [rows, width])
    scale = scale_of(parts.get("weight_scale"), settings["strategy"], [rows, columns], settings.get("size"))
    stored = decode(words)
    codes = [bits_of(stored[row * width:(row + 1) * width], bits, columns) for row in range(rows)]
    zero, middle = parts.get("weight_zero_point"), 1 << bits - 1
    if zero is not None and settings["strategy"] == "tensor":  # not packed
        middle += scalar(zero, REAL - SCALES)
    if zero is None or settings["strategy"] == "tensor":
        return Reading([rows, columns], lambda row, column: (codes[row][column] - middle) * scale(row, column), None)
    groups = columns // settings["size"] if settings["strategy"] == "group" else 1
    need(zero.dtype in WORDS and zero.shape == [cdiv(rows * bits, 32), groups])
    zeros = decode(zero)
    zeros = [bits_of(zeros[group::groups], bits, rows) for group in range(groups)]
    return Reading([rows, columns], lambda row, column: (
        codes[row][column] - zeros[column * groups // columns][row]) * scale(row, column), None)


def gptq(parts, settings):
    words, zeros, scales, index = (parts.get(leaf) for leaf in ("qweight", "qzeros", "scales", "g_idx"))
    bits = settings["bits"]
    need(all(part is not None for part in (words, zeros, scales, index)) and words.dtype in WORDS and zeros.dtype in WORDS)
    need(len(words.shape) == 2 and words.shape[0] * 32 % bits == 0)
    columns, rows = words.shape[0] * 32 // bits, words.shape[1]
    groups = cdiv(columns, settings["size"])
    need(rows * bits % 32 == 0 and zeros.shape == [groups, rows * bits // 32] and scales.shape == [groups, rows])
    need(index.shape == [columns])
    stored, numbers_, order = decode(words), reals(scales, SCALES), reals(index)
    need(all(0 <= group < groups and group == int(group) for group in order))
    width, stored_zeros = zeros.shape[1], decode(zeros)
    codes = [bits_of(stored[row::rows], bits, columns) for row in range(rows)]
    zeros = [bits_of(stored_zeros[group * width:(group + 1) * width], bits, rows) for group in range(groups)]
    order = list(map(int, order))
    return Reading([rows, columns], lambda row, column: (
        codes[row][column] - zeros[order[column]][row]) * numbers_[order[column] * rows + row], None)


def awq(parts, settings):
    """AutoAWQ, and Quark's INT4, which has its order under other names."""
    words, zeros, scales = (parts.get(leaf) for leaf in settings["leaves"])
    need(all(part is not None for part in (words, zeros, scales)) and words.dtype in WORDS and zeros.dtype in WORDS)
    need(len(words.shape) == 2 and words.shape[0] % settings["size"] == 0)
    columns, width = words.shape
    rows, groups, size = width * 8, columns // settings["size"], settings["size"]
    need(zeros.shape == [groups, width] and scales.shape == [groups, rows])
    stored, stored_zeros, numbers_ = decode(words), decode(zeros), reals(scales, SCALES)

    def slot(word, row):
        return (word & 0xFFFFFFFF) >> 4 * AWQ_ORDER.index(row % 8) & 15
    return Reading([rows, columns], lambda row, column: (
        slot(stored[column * width + row // 8], row) - slot(stored_zeros[column // size * width + row // 8], row))
        * numbers_[column // size * rows + row], None)


def bnb4(parts, settings):
    weight, absmax, table = (parts.get(leaf) for leaf in ("weight", "weight.absmax", "weight.quant_map"))
    state = parts.get(f"weight.quant_state.bitsandbytes__{settings['kind']}")
    need(state is not None and state.dtype in BYTES and len(state.shape) == 1)
    try:
        stated = json.loads(state.data)
        rows, columns = stated["shape"]
        size = stated["blocksize"]
    except (ValueError, KeyError, TypeError):
        raise NoReading from None
    need(weight is not None and weight.dtype in BYTES and weight.shape == [rows * columns // 2, 1])
    need(absmax is not None and absmax.shape == [cdiv(rows * columns, size)] and table is not None and table.shape == [16])
    scales, values = reals(absmax, SCALES), reals(table)

    def at(row, column):
        i = row * columns + column
        return values[weight.data[i // 2] >> 4 * (1 - i % 2) & 15] * scales[i // size]
    return Reading([rows, columns], at, None)


def bnb8(parts, settings):
    weight, scales, kind = (parts.get(leaf) for leaf in ("weight", "SCB", "weight_format"))
    need(weight is not None and len(weight.shape) == 2 and scales is not None and kind is not None and scalar(kind, REAL) == 0)
    rows, columns = weight.shape
    need(scales.shape == [rows])
    values, scales = reals(weight, REAL - {"F4"}), reals(scales, SCALES)
    return Reading([rows, columns], lambda row, column: values[row * columns + column] * scales[row] / 127, None)


def stacked_blocks(parts, settings):
    """transformers' stacked experts in fine-grained FP8: each expert by itself."""
    weight, scale = parts.get("weight"), parts.get("weight_scale_inv")
    need(weight is not None and scale is not None and len(weight.shape) == 3 == len(scale.shape))
    experts = weight.shape[0]
    need(experts == scale.shape[0])
    values, numbers_, (height, width) = reals(weight, REAL - {"F4"}), reals(scale, SCALES), settings["size"]
    rows, columns = weight.shape[1:]
    down, across = cdiv(rows, height), cdiv(columns, width)
    need(scale.shape[1:] == [down, across])
    return Reading(weight.shape, lambda expert, row, column: values[(expert * rows + row) * columns + column]
                   * numbers_[(expert * down + row // height) * across + column // width], None)


def gpt_oss(parts, settings):
    """Blocks of 32 inputs, 16 bytes each; the parameter has the inputs before the outputs."""
    blocks, scales = parts.get("blocks"), parts.get("scales")
    need(blocks is not None and scales is not None and blocks.dtype in BYTES and scales.dtype in ("U8", "F8_E8M0"))
    need(len(blocks.shape) in (3, 4) and blocks.shape[-1] == 16 and scales.shape == blocks.shape[:-1])
    exponents = decode(scales._replace(dtype="F8_E8M0"))
    *outer, rows, across, _ = blocks.shape

    def at(*index):
        *expert, column, row = index
        block = ((expert[0] * rows if expert else 0) + row) * across + column // 32
        return e2m1(blocks.data[block * 16 + column % 32 // 2] >> 4 * (column % 2) & 15) * exponents[block]
    return Reading([*outer, across * 32, rows], at, None)


def read(parts, decoder, settings):
    """The reading of a module's parts, or None."""
    try:
        reading = decoder(parts, settings)
        if any(size == 0 for size in reading.shape):
            return None
        return reading._replace(rest={leaf: part for leaf, part in parts.items() if leaf in ACTIVATIONS})
    except NoReading:
        return None


def conforms(parts):
    """Whether the scales of activations are what a server takes: one number each."""
    return all(count(part.shape) == 1 and part.dtype in FLOATS for leaf, part in parts.items() if leaf in ACTIVATIONS)
