"""Views of torch tensors and numpy arrays by offsets and strides, as plans of state dicts ask for them.

Offsets and strides count elements of a tensor as if it lay dense and row-major; here they are carried over to how it lies.
"""
from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from quantport import _core

_CODE = {name: code for code, name in enumerate(_core.DTYPES)}
# Names of the dtypes in torch, numpy and ml_dtypes.
_DTYPES = {
    "BOOL": "bool", "U8": "uint8", "I8": "int8", "I16": "int16", "U16": "uint16", "F16": "float16", "BF16": "bfloat16",
    "I32": "int32", "U32": "uint32", "F32": "float32", "C64": "complex64", "F64": "float64", "I64": "int64", "U64": "uint64",
    "F8_E5M2": "float8_e5m2", "F8_E4M3": "float8_e4m3fn", "F8_E8M0": "float8_e8m0fnu", "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2FNUZ": "float8_e5m2fnuz"}

# A box: (tensor or -1, step, from, to, extents, from strides, to strides). An array: (dtype, shape, boxes).
Ints = Sequence[int]
Box = tuple[int, int, int, int, Ints, Ints, Ints]
Array = tuple[int, Ints, list[Box]]


def place(shape: Ints, strides: Ints, offset: int, extents: Ints, steps: Ints) -> tuple[int, list[int]] | None:
    """The offset and strides at which a tensor of ``shape`` and ``strides`` has what lies at ``offset`` in steps of
    ``steps`` in a dense one; None where no strides say that. A stride of ``strides`` may be 0 or negative."""
    dense = 1
    dims: list[list[int]] = []  # inner first: extent, dense stride, stride; neighbours that lie densely together are one
    for extent, stride in zip(reversed(shape), reversed(strides)):
        if extent != 1:
            if dims and stride == dims[-1][2] * dims[-1][0]:
                dims[-1][0] *= extent
            else:
                dims.append([extent, dense, stride])
        dense *= extent
    start, left, last = 0, offset, []
    for extent, size, stride in reversed(dims):
        index, left = divmod(left, size)
        start += index * stride
        last.append(index)
    last.reverse()
    placed = []
    for extent, step in zip(extents, steps):
        if extent <= 1 or step == 0:
            placed.append(0)
            continue
        at = next((i for i in range(len(dims) - 1, -1, -1) if dims[i][1] <= step), None)
        if at is None or step % dims[at][1]:
            return None
        placed.append(step // dims[at][1] * dims[at][2])
        last[at] += step // dims[at][1] * (extent - 1)
    if any(index >= max(dim[0], 1) for index, dim in zip(last, dims)):
        return None
    return start, placed


class Arrays:
    """What state dicts need of a tensor library; ``tensors`` are the values of the dict in order."""

    def __init__(self, tensors: list[Any]) -> None:
        self.tensors = tensors

    def recording(self) -> AbstractContextManager[Any]:
        """In which views are made: they are no part of a graph that gradients go through."""
        return nullcontext()

    # -- one tensor

    def codes(self) -> list[int]:
        """The dtypes as places in _core.DTYPES. Raises TypeError naming the place of one that has none."""
        raise NotImplementedError

    def strided(self, tensor: Any, offset: int, extents: Ints, steps: Ints) -> Any:
        """A view, or of a copy where no strides say it."""
        raise NotImplementedError

    def is_dense(self, tensor: Any) -> bool:
        raise NotImplementedError

    def parts(self, tensor: Any) -> Sequence[Any]:
        """Its views along the first dimension."""
        raise NotImplementedError

    def copy(self, tensor: Any) -> Any:
        raise NotImplementedError

    def memory(self, tensor: Any) -> tuple[Any, int, int, bool] | None:
        """(device, address, bytes, dense), or None where it has no memory."""
        raise NotImplementedError

    def content(self, tensor: Any) -> bytes | None:
        """Its bytes, dense; None where it has none."""
        raise NotImplementedError

    def from_bytes(self, content: bytes, code: int, shape: Ints) -> Any:
        raise NotImplementedError

    # -- several

    def empty(self, code: int, shape: Ints, sources: list[Any]) -> Any:
        raise NotImplementedError

    def assign(self, target: Any, source: Any) -> None:
        """Into every element; ``source`` None: zeros."""
        raise NotImplementedError

    def recode(self, tensor: Any, codes: bytes) -> tuple[Any, list[int]]:
        """A tensor of one-byte elements with each replaced by its entry of a table; how often each entry was met."""
        raise NotImplementedError

    def view(self, index: int, offset: int, extents: Ints, steps: Ints) -> Any:
        tensor = self.tensors[index]
        try:
            return self.strided(tensor, offset, extents, steps)
        except (RuntimeError, NotImplementedError) as error:
            kind = f"{type(tensor).__module__}.{type(tensor).__qualname__}"
            raise TypeError(f"a tensor of shape {list(tensor.shape)} is to be cut, and its class {kind} has no views by strides "
                            "(a part of a tensor on this device, sparse, or in a format of its own): put what it stands for "
                            f"into the state dict, such as full_tensor() or to_dense() ({error})") from error

    def series(self, index: int, count: int, distance: int, offset: int, shape: Ints, strides: Ints,
               copied: bool) -> Sequence[Any]:
        """``count`` views that begin ``distance`` apart: parts of one larger view, where the tensor is dense."""
        if not self.is_dense(self.tensors[index]):
            views = [self.view(index, offset + i * distance, shape, strides) for i in range(count)]
            return [self.copy(view) for view in views] if copied else views
        whole = self.view(index, offset, (count, *shape), (distance, *strides))
        return self.parts(self.copy(whole) if copied else whole)

    def join(self, array: Array, steps: list[Any]) -> Any:
        """New memory with the elements of the boxes. ``steps``: see state_dict.Steps."""
        code, shape, boxes = array
        target = self.empty(code, shape, [self.tensors[box[0]] for box in boxes if box[0] >= 0])
        for index, step, start, to, extents, from_strides, to_strides in boxes:
            part = self.strided(target, to, extents, to_strides)
            source = None if index < 0 else self.view(index, start, extents, from_strides)
            self.assign(part, source if step == 0 or source is None else steps[step - 1].apply(self, source))
        return target

    def dense(self, array: Array) -> Any:
        """As join(), but a view where one box is all."""
        if len(array[2]) == 1 and array[2][0][0] >= 0:
            index, _, start, _, extents, strides, _ = array[2][0]
            return self.view(index, start, extents, strides)
        return self.join(array, [])

    def unequal(self, pairs: list[tuple[Array, Array]]) -> list[int]:
        """Which pairs differ in their bytes; those without values don't."""
        return [i for i, (a, b) in enumerate(pairs) if self.content(self.dense(a)) != self.content(self.dense(b))]


def _name(code: int) -> str:
    return _DTYPES[_core.DTYPES[code]]


def _unknown_dtype(dtype: Any) -> TypeError:
    return TypeError(f"has the dtype {dtype}, which safetensors files don't have: convert the tensor, or leave it out")


class TorchArrays(Arrays):
    def __init__(self, tensors: list[Any]) -> None:
        super().__init__(tensors)
        import torch
        self.torch = torch
        self.dtypes = {_CODE[name]: getattr(torch, dtype) for name, dtype in _DTYPES.items() if hasattr(torch, dtype)}
        self.code_of = {dtype: code for code, dtype in self.dtypes.items()}
        # Two values an element, which files have as bytes.
        if hasattr(torch, "float4_e2m1fn_x2"):
            self.code_of[torch.float4_e2m1fn_x2] = _CODE["U8"]

    def recording(self) -> AbstractContextManager[Any]:
        return self.torch.no_grad()  # type: ignore[no-any-return]

    def codes(self) -> list[int]:
        code_of = self.code_of
        try:
            return [code_of[tensor.dtype] for tensor in self.tensors]
        except KeyError as error:
            raise _unknown_dtype(error.args[0]) from None

    def strided(self, tensor: Any, offset: int, extents: Ints, steps: Ints) -> Any:
        tensor = tensor.detach()
        if not tensor.is_contiguous():
            placed = place(tensor.shape, tensor.stride(), offset, extents, steps)
            if placed is not None:
                return tensor.as_strided(extents, placed[1], tensor.storage_offset() + placed[0])
            tensor = tensor.contiguous()
        return tensor.as_strided(extents, steps, tensor.storage_offset() + offset)

    def is_dense(self, tensor: Any) -> bool:
        return bool(tensor.is_contiguous())

    def parts(self, tensor: Any) -> Sequence[Any]:
        return tensor.unbind(0)  # type: ignore[no-any-return]

    def copy(self, tensor: Any) -> Any:
        return tensor.detach().clone()

    def memory(self, tensor: Any) -> tuple[Any, int, int, bool] | None:
        try:
            if tensor.is_meta or not tensor.numel():
                return None
            address = tensor.data_ptr()
            # 0: a tensor of others (sharded, fake, in a format of its own) has no memory of its own.
            return (tensor.device, address, tensor.nbytes, tensor.is_contiguous()) if address else None
        except (RuntimeError, NotImplementedError):  # a subclass or layout without memory of its own
            return None

    def content(self, tensor: Any) -> bytes | None:
        torch = self.torch
        if tensor.is_meta:
            return None
        flat = tensor.detach().reshape(-1).contiguous().view(torch.uint8).cpu()
        return bytes(flat.tolist()) if flat.numel() < 64 else flat.numpy().tobytes()

    def from_bytes(self, content: bytes, code: int, shape: Ints) -> Any:
        torch = self.torch
        flat = torch.frombuffer(bytearray(content), dtype=self.dtypes[code]) if content else torch.empty(0, dtype=self.dtypes[code])
        return flat.reshape(tuple(shape))

    def empty(self, code: int, shape: Ints, sources: list[Any]) -> Any:
        devices = {source.device for source in sources}
        if len(devices) > 1 and any(device.type == "meta" for device in devices):
            raise ValueError("tensors that become one are partly on the meta device: load them all, or none")
        dtype = sources[0].dtype if sources else self.dtypes[code]
        return self.torch.empty(tuple(shape), dtype=dtype, device=sources[0].device if sources else None)

    def assign(self, target: Any, source: Any) -> None:
        if source is None:
            target.zero_()
        else:
            target.copy_(source)

    def recode(self, tensor: Any, codes: bytes) -> tuple[Any, list[int]]:
        torch = self.torch
        flat = tensor.reshape(-1).contiguous().view(torch.uint8)
        table = torch.tensor(list(codes), dtype=torch.uint8, device=flat.device)
        out, counts = torch.empty_like(flat), [0] * 256
        for begin in range(0, flat.numel(), 1 << 22):  # indices are eight times as large as what they index
            window = flat[begin:begin + (1 << 22)].long()
            out[begin:begin + (1 << 22)] = table[window]
            if not flat.is_meta:
                counts = [a + b for a, b in zip(counts, torch.bincount(window, minlength=256).tolist())]
        return out.view(tensor.dtype).reshape(tensor.shape), counts

    def unequal(self, pairs: list[tuple[Array, Array]]) -> list[int]:
        """In one comparison a device: on a GPU each would wait for all work before it."""
        torch = self.torch
        batches: dict[Any, list[tuple[int, Any, Any]]] = {}
        for i, (a, b) in enumerate(pairs):
            left, right = self.dense(a), self.dense(b)
            if left.is_meta or right.is_meta:
                continue
            left, right = (t.detach().reshape(-1).contiguous().view(torch.uint8) for t in (left, right.to(left.device)))
            batches.setdefault(left.device, []).append((i, left, right))
        failed = []
        for batch in batches.values():
            if not torch.equal(torch.cat([left for _, left, _ in batch]), torch.cat([right for _, _, right in batch])):
                failed += [i for i, left, right in batch if not torch.equal(left, right)]
        return sorted(failed)


class NumpyArrays(Arrays):
    def __init__(self, tensors: list[Any]) -> None:
        super().__init__(tensors)
        import numpy
        self.numpy = numpy
        self.code_of = {dtype: _CODE[name] for name, dtype in _DTYPES.items()}

    def codes(self) -> list[int]:
        by_dtype: dict[Any, int] = {}
        out = []
        for tensor in self.tensors:
            code = by_dtype.get(tensor.dtype)
            if code is None:
                if tensor.dtype.name not in self.code_of or not tensor.dtype.isnative:
                    raise _unknown_dtype(tensor.dtype.str if not tensor.dtype.isnative else tensor.dtype)
                code = by_dtype[tensor.dtype] = self.code_of[tensor.dtype.name]
            out.append(code)
        return out

    def strided(self, tensor: Any, offset: int, extents: Ints, steps: Ints) -> Any:
        numpy = self.numpy
        if not math.prod(extents):
            return tensor.reshape(-1)[:0].reshape(tuple(extents))
        strides = [step * tensor.dtype.itemsize for step in steps]
        if not tensor.flags.c_contiguous:
            placed = place(tensor.shape, tensor.strides, offset, extents, steps)
            if placed is None:
                tensor = numpy.ascontiguousarray(tensor)
            else:
                strides = placed[1]
        first = tensor[tuple(slice(int(at), int(at) + 1) for at in numpy.unravel_index(offset, tensor.shape))]
        return numpy.lib.stride_tricks.as_strided(first, tuple(extents), tuple(strides))

    def is_dense(self, tensor: Any) -> bool:
        return bool(tensor.flags.c_contiguous)

    def parts(self, tensor: Any) -> Sequence[Any]:
        if tensor.ndim > 1:
            return list(tensor)
        return [tensor[i:i + 1].reshape(()) for i in range(len(tensor))]

    def copy(self, tensor: Any) -> Any:
        return tensor.copy()

    def memory(self, tensor: Any) -> tuple[Any, int, int, bool] | None:
        if not tensor.size:
            return None
        return None, tensor.__array_interface__["data"][0], tensor.nbytes, tensor.flags.c_contiguous

    def content(self, tensor: Any) -> bytes | None:
        return tensor.tobytes()  # type: ignore[no-any-return]

    def from_bytes(self, content: bytes, code: int, shape: Ints) -> Any:
        return self.numpy.frombuffer(bytearray(content), dtype=_name(code)).reshape(tuple(shape))

    def empty(self, code: int, shape: Ints, sources: list[Any]) -> Any:
        return self.numpy.empty(tuple(shape), dtype=sources[0].dtype if sources else _name(code))

    def assign(self, target: Any, source: Any) -> None:
        target[...] = 0 if source is None else source

    def recode(self, tensor: Any, codes: bytes) -> tuple[Any, list[int]]:
        numpy = self.numpy
        flat = numpy.ascontiguousarray(tensor).reshape(-1).view(numpy.uint8)
        table = numpy.frombuffer(codes, dtype=numpy.uint8)
        return (table[flat].view(tensor.dtype).reshape(tensor.shape),
                numpy.bincount(flat, minlength=256).tolist())
