"""Follows the tensors of a checkpoint through an engine's weight loading into the parameters they are copied to.

A dispatch mode sees every operator that PyTorch runs. Tensors derived from a checkpoint's tensor (slices, casts,
transposes, concatenations) keep its name, by the storage they live in; a write into a parameter's storage marks the
bytes that it covers. So an engine's own loaders run as they are, whatever they do.
"""
import collections
import os
import tempfile

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten


def _storage(tensor):
    try:
        return tensor.untyped_storage().data_ptr()
    except (RuntimeError, NotImplementedError):
        return 0


class Parameter:
    """A parameter or buffer of the model, with the bytes that loading wrote and the dtypes that were written to it."""

    def __init__(self, name, tensor):
        self.name, self.tensor = name, tensor
        self.written = torch.zeros(tensor.untyped_storage().nbytes(), dtype=torch.bool)
        self.sources = collections.OrderedDict()  # checkpoint tensor -> [offset in elements, elements] of its first copy

    def mark(self, view, names):
        size = view.element_size()
        strides = [stride * size for stride in view.stride()] + [1]
        self.written.as_strided([*view.shape, size], strides, view.storage_offset() * size).fill_(True)
        for name in names:
            self.sources.setdefault(name, [view.storage_offset(), view.numel()])

    def part_written(self):
        """0 where loading wrote nothing, 1 where it wrote everything."""
        covered = self.written.as_strided(
            [*self.tensor.shape, self.tensor.element_size()],
            [stride * self.tensor.element_size() for stride in self.tensor.stride()] + [1],
            self.tensor.storage_offset() * self.tensor.element_size())
        return covered.float().mean().item()


class Tracker(TorchDispatchMode):
    def __init__(self, model):
        super().__init__()
        self.names = {}  # storage -> names of the checkpoint's tensors that its content comes from
        self.alive = []  # storages must not be freed: another tensor's would be taken for them
        self.read = None  # names of the scalar that .item() took last, which fill_ writes as a Python number
        self.parameters = {}
        self.tensors = {}
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if tensor.numel() and _storage(tensor) not in self.parameters:
                self.parameters[_storage(tensor)] = Parameter(name, tensor)

    def checkpoint_tensors(self, weights):
        """Hands on an engine's (name, tensor) pairs, each noted under its name."""
        for name, tensor in weights:
            # Storages of a file mapped into memory lie within each other; a clone has one to itself.
            tensor = tensor.clone()
            self.tensors[name] = tensor
            self.names[_storage(tensor)] = (name,)
            yield name, tensor

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        operator = func.name().split(".")[0]
        inputs = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, torch.Tensor)]
        names = tuple(dict.fromkeys(name for x in inputs for name in self.names.get(_storage(x), ())))
        if operator == "aten::_local_scalar_dense":
            self.read = names
        elif operator == "aten::fill_" and self.read and not isinstance(args[1], torch.Tensor):
            names, self.read = self.read, None
        if not names:
            return out
        if operator.endswith("_") and operator != "aten::requires_grad_":
            self._write(args[0], names)
            return out
        for x in tree_flatten(out)[0]:
            if isinstance(x, torch.Tensor) and _storage(x) not in self.parameters:
                self.names.setdefault(_storage(x), names)
                self.alive.append(x)
        return out

    def _write(self, target, names):
        parameter = self.parameters.get(_storage(target))
        if parameter is not None:
            parameter.mark(target, names)
        else:
            self.names[_storage(target)] = tuple(dict.fromkeys(self.names.get(_storage(target), ()) + names))
            self.alive.append(target)

    def report(self):
        used = {name for parameter in self.parameters.values() for name in parameter.sources}
        parts = {p.name: p.part_written() for p in self.parameters.values() if isinstance(p.tensor, torch.nn.Parameter)}
        casts = {}
        for parameter in self.parameters.values():
            for name in parameter.sources:
                stored, held = self.tensors[name].dtype, parameter.tensor.dtype
                if stored != held:
                    casts.setdefault(f"{stored} -> {held}".replace("torch.", ""), []).append(name)
        return {
            "tensors": len(self.tensors),
            "unused": sorted(set(self.tensors) - used),
            "unwritten": sorted(name for name, part in parts.items() if part == 0),
            "partly": sorted(name for name, part in parts.items() if 0 < part < 1),
            "casts": casts,
            "placed": {p.name: p.sources for p in self.parameters.values() if p.sources},
        }


def rendezvous(pid):
    """The file through which a process meets itself as the only member of its group; whoever waits for it removes it."""
    return os.path.join(tempfile.gettempdir(), f"quantport-rendezvous-{pid}")


def layer_methods(model):
    """The quantization method of every layer, by the layer's name."""
    return {name: type(layer.quant_method).__name__ for name, layer in model.named_modules()
            if getattr(layer, "quant_method", None) is not None}
