"""What may be wrong with one tensor of a quantized weight: another shape, or another dtype."""
from dtypes import BITS, REAL, Tensor, count, decode, encode


def taken(tensor, axis, indices):
    """The entries `indices` along an axis; None stands for zeros."""
    shape, width = tensor.shape, BITS[tensor.dtype] // 8
    size, inner = shape[axis], width * count(shape[axis + 1:])
    data = b"".join(bytes(inner) if i is None else tensor.data[(outer * size + i) * inner:(outer * size + i + 1) * inner]
                    for outer in range(count(shape[:axis])) for i in indices)
    return Tensor(tensor.dtype, [*shape[:axis], len(indices), *shape[axis + 1:]], data)


def transposed(tensor):
    *outer, rows, columns = tensor.shape
    width = BITS[tensor.dtype] // 8
    step = rows * columns * width
    data = b"".join(tensor.data[at + (row * columns + column) * width:at + (row * columns + column + 1) * width]
                    for at in range(0, count(outer) * step, step) for column in range(columns) for row in range(rows))
    return Tensor(tensor.dtype, [*outer, columns, rows], data)


def shapes(tensor):
    """Pairs of a label and a tensor."""
    dtype, shape, data = tensor
    for axis, size in enumerate(shape):
        yield f"one more along {axis}", taken(tensor, axis, [*range(size), 0])
        yield f"one fewer along {axis}", taken(tensor, axis, range(size - 1))
        yield f"doubled along {axis}", taken(tensor, axis, [*range(size)] * 2)
        yield f"padded along {axis}", taken(tensor, axis, [*range(size), *[None] * (16 - size % 16)])
        if size > 1:
            yield f"halved along {axis}", taken(tensor, axis, range(size // 2))
    first = data[:BITS[dtype] // 8]
    yield "[]", Tensor(dtype, [], first)
    yield "[1]", Tensor(dtype, [1], first)
    yield "[1, 1]", Tensor(dtype, [1, 1], first)
    yield "flattened", Tensor(dtype, [count(shape)], data)
    yield "with a 1 in front", Tensor(dtype, [1, *shape], data)
    yield "with a 1 behind", Tensor(dtype, [*shape, 1], data)
    if not shape:
        yield "[2]", Tensor(dtype, [2], data * 2)
        yield "[0]", Tensor(dtype, [0], b"")
    if len(shape) > 1:
        yield "transposed", transposed(tensor)
        rows, columns = shape[-2:]
        if columns % 2 == 0:
            yield "twice the rows", Tensor(dtype, [*shape[:-2], rows * 2, columns // 2], data)
        if rows % 2 == 0:
            yield "half the rows", Tensor(dtype, [*shape[:-2], rows // 2, columns * 2], data)


def dtypes(tensor):
    """In every other dtype: the numbers where it holds them, and the bytes where their count allows."""
    dtype, shape, data = tensor
    numbers = decode(tensor) if dtype in REAL else None
    for other, bits in BITS.items():
        if other == dtype:
            continue
        recoded = encode(other, numbers) if numbers else None
        if recoded is not None:
            yield f"numbers as {other}", Tensor(other, shape, recoded)
        if bits == BITS[dtype]:
            yield f"bytes as {other}", Tensor(other, shape, data)
        elif recoded is None and shape and shape[-1] * BITS[dtype] % bits == 0 and shape[-1] > 0:
            yield f"bytes as {other}", Tensor(other, [*shape[:-1], shape[-1] * BITS[dtype] // bits], data)
        elif recoded is None and not shape and BITS[dtype] % bits == 0:
            yield f"bytes as {other}", Tensor(other, [BITS[dtype] // bits], data)


def variants(tensor):
    """name -> tensor, each once."""
    seen, out = {(tensor.dtype, tuple(tensor.shape))}, {}
    for label, variant in shapes(tensor):
        key = (variant.dtype, tuple(variant.shape))
        if key not in seen:  # the first of a shape; none other has other bytes in a way that matters
            seen.add(key)
            out[label] = variant
    out.update((label, variant) for label, variant in dtypes(tensor))
    return out
