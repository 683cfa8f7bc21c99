"""`calibrate`: runs batches through a transformers model and writes the calibration file that `quantize` reads."""
from __future__ import annotations

import contextlib
import math
import os
import re
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Optional, Union

import torch
from torch.overrides import TorchFunctionMode

from quantport.calibration_file import check_target, write_calibration
from quantport.calibration_report import CalibrationError, CalibrationReport, ExpertsReport, count_of, listed
from quantport.expert_containers import ExpertCall, ExpertContainer, eager_experts, find_expert_containers
from quantport.progress import _on_terminal, _tqdm

# transformers' look-up of the attention function is one per process, so calibrations take turns.
_one_at_a_time = threading.RLock()


class _Maxima:
    """The largest magnitude for each name, kept on the device where the values are: nothing waits for it."""

    def __init__(self) -> None:
        self._amax: dict[str, dict[torch.device, torch.Tensor]] = {}

    def update(self, name: str, values: torch.Tensor) -> None:
        values = values.detach()
        if values.numel() == 0:
            return
        amax = _largest_magnitude(values)
        by_device = self._amax.setdefault(name, {})
        # maximum keeps a NaN, so that one look at the end is enough.
        by_device[values.device] = torch.maximum(by_device[values.device], amax) if values.device in by_device else amax

    def read(self) -> dict[str, float]:
        """All values, in the order in which their modules were first called. Errors: CalibrationError."""
        out = {name: 0.0 for name in self._amax}
        places: dict[torch.device, list[str]] = {}
        for name, by_device in self._amax.items():
            for device in by_device:
                places.setdefault(device, []).append(name)
        for device, names in places.items():
            if device.type == "meta":
                raise CalibrationError("the model has no weights (meta device): load it before calibrating")
            for name, value in zip(names, torch.stack([self._amax[name][device].float() for name in names]).tolist()):
                if math.isnan(value) or value > out[name]:  # a NaN that is there already stays
                    out[name] = value
        bad = [name for name, value in out.items() if not math.isfinite(value)]
        if bad:
            module, leaf = bad[0].rsplit(".", 1)
            what = {"input_amax": "the input", "k_amax": "K", "v_amax": "V"}[leaf]
            raise CalibrationError(
                f"{what} of {module} is not finite ({out[bad[0]]}), first of {count_of(len(bad), 'place')} with NaN or "
                "infinity: look at the batches and at the type the model computes in")
        return out


def _largest_magnitude(values: torch.Tensor) -> torch.Tensor:
    """A scalar of the type of `values`; NaN where there is one."""
    if values.dtype.itemsize == 1:
        values = values.to(torch.float32)  # no reductions for FP8
    if values.device.type != "cpu":
        # One kernel in place of four: experts are many small calls, and launching is what they cost.
        norm: torch.Tensor = torch.linalg.vector_norm(values, math.inf)
        return norm
    low, high = torch.aminmax(values)  # 5 times as fast as the norm on a CPU
    return torch.maximum(low.abs(), high.abs())


class _Recorder(TorchFunctionMode):
    """Hooks into one model, and the amax that they see. Entered, it also sees the linears of fused experts."""

    def __init__(self, model: torch.nn.Module, containers: list[ExpertContainer]) -> None:
        super().__init__()
        self.maxima = _Maxima()
        self.rows: dict[str, int] = {}  # that a linear, or a container's expert, saw
        self.called: set[str] = set()  # containers
        self.unattributed: set[str] = set()  # containers whose experts can't be told apart
        self._names = {id(module): name for name, module in model.named_modules()}
        self._calls: list[ExpertCall] = []
        self._containers = containers
        self._linears = {name: module for name, module in model.named_modules() if _is_linear(module)}

    @property
    def linears(self) -> list[str]:
        return list(self._linears)

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            for name, module in self._linears.items():
                hook = module.register_forward_pre_hook(self._linear_hook(name), with_kwargs=True)
                stack.callback(hook.remove)
            for container in self._containers:
                enter = container.module.register_forward_pre_hook(self._enter_hook(container))
                stack.callback(enter.remove)
                leave = container.module.register_forward_hook(self._leave, always_call=True)
                stack.callback(leave.remove)
            stack.enter_context(_watched_attention(self._record_attention))
            stack.enter_context(self)
            yield

    def _linear_hook(self, name: str) -> Callable[..., None]:
        def hook(module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            values = args[0] if args else kwargs.get("input")
            if isinstance(values, torch.Tensor):
                self._record(name, values)
        return hook

    def _record(self, name: str, values: torch.Tensor) -> None:
        self.rows[name] = self.rows.get(name, 0) + (values.numel() // values.shape[-1] if values.numel() else 0)
        self.maxima.update(f"{name}.input_amax", values)

    def _enter_hook(self, container: ExpertContainer) -> Callable[..., None]:
        def hook(module: torch.nn.Module, args: tuple[Any, ...]) -> None:
            self.called.add(container.name)
            self._calls.append(ExpertCall(container))
        return hook

    def _leave(self, module: torch.nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if self._calls and self._calls[-1].container.module is module:
            self._calls.pop()

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (),
                           kwargs: Optional[dict[str, Any]] = None) -> Any:
        if self._calls and func is torch.nn.functional.linear:
            self._record_expert(*_linear_arguments(args, kwargs or {}))
        return func(*args, **(kwargs or {}))

    def _record_expert(self, values: torch.Tensor, weight: torch.Tensor) -> None:
        call = self._calls[-1]
        place = call.place(weight)
        if place is None:
            return
        projection, expert = place
        name = call.container.name
        # One number for all experts of a container, as ModelOpt and the engines have it.
        self.maxima.update(f"{name}.{projection}.input_amax", values)
        if expert is None:
            self.unattributed.add(name)
        elif projection == "down_proj" and values.numel():
            key = f"{name}.{expert}"
            self.rows[key] = self.rows.get(key, 0) + values.numel() // values.shape[-1]

    def _record_attention(self, module: Any, key: torch.Tensor, value: torch.Tensor) -> None:
        name = self._names.get(id(module))
        if name is not None:
            self.maxima.update(f"{name}.k_amax", key)
            self.maxima.update(f"{name}.v_amax", value)


def _is_linear(module: torch.nn.Module) -> bool:
    return isinstance(module, torch.nn.Linear) or type(module).__name__ == "Conv1D"  # GPT-2's transposed linear


def _linear_arguments(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    values = args[0] if args else kwargs["input"]
    return values, args[1] if len(args) > 1 else kwargs["weight"]


@contextlib.contextmanager
def _watched_attention(record: Callable[[Any, torch.Tensor, torch.Tensor], None]) -> Iterator[None]:
    """Shows `record` the K and V of every attention, as transformers hands them to its attention functions.

    That is where ModelOpt's quantizers of the KV cache are: after RoPE, with what a cache holds, before heads repeat.
    """
    from transformers.modeling_utils import AttentionInterface

    original = AttentionInterface.__dict__["get_interface"]

    def get_interface(self: Any, *args: Any, **kwargs: Any) -> Callable[..., Any]:
        attend = original(self, *args, **kwargs)

        def watched(module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *rest: Any,
                    **named: Any) -> Any:
            record(module, key, value)
            return attend(module, query, key, value, *rest, **named)
        return watched

    setattr(AttentionInterface, "get_interface", get_interface)
    try:
        yield
    finally:
        setattr(AttentionInterface, "get_interface", original)


@contextlib.contextmanager
def _evaluating(model: torch.nn.Module) -> Iterator[None]:
    training = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        yield
    finally:
        for module, value in training:
            module.training = value


def _input_device(model: torch.nn.Module) -> Optional[torch.device]:
    """Where batches go; None where accelerate's hooks move them."""
    if hasattr(model, "_hf_hook"):
        return None
    return next((p.device for p in model.parameters() if p.device.type != "meta"), None)


def _moved(value: Any, device: Optional[torch.device]) -> Any:
    if isinstance(value, torch.Tensor):
        return value if device is None else value.to(device)
    if isinstance(value, Mapping):
        return {key: _moved(item, device) for key, item in value.items()}
    return type(value)(_moved(item, device) for item in value) if type(value) in (list, tuple) else value


def _run(model: torch.nn.Module, batch: Any, device: Optional[torch.device]) -> None:
    if isinstance(batch, Mapping):
        model(**_moved(batch, device))
    elif isinstance(batch, torch.Tensor):
        model(_moved(batch, device))
    elif isinstance(batch, (list, tuple)) and batch and all(isinstance(item, torch.Tensor) for item in batch):
        model(*_moved(batch, device))
    else:
        raise TypeError(f"a batch is a {type(batch).__name__}: give dicts of the model's arguments, tensors of token "
                        "ids or tuples of tensors, or say with forward=function(model, batch) how it is run")


@contextlib.contextmanager
def _counting(progress: Any, total: Optional[int]) -> Iterator[Callable[[int], None]]:
    """What is called with the number of batches done, for the argument `progress`."""
    bar_type = _tqdm() if progress is True or (progress is None and _on_terminal()) else None
    if bar_type is None:
        yield lambda done: progress(done, total) if callable(progress) else None
        return
    with bar_type(total=total, desc="calibrate", unit="batch") as bar:
        yield lambda done: bar.update(done - bar.n)


def _length(batches: Any) -> Optional[int]:
    """None where it does not tell: a DataLoader of an IterableDataset has a __len__ that raises."""
    try:
        return len(batches)
    except TypeError:
        return None


def _single_batch(batches: Any) -> bool:
    return isinstance(batches, (torch.Tensor, Mapping))


def _expert_reports(recorder: _Recorder, containers: list[ExpertContainer]) -> list[ExpertsReport]:
    reports = []
    for container in containers:
        tokens = [recorder.rows.get(f"{container.name}.{i}", 0) for i in range(container.experts)]
        hidden = container.name in recorder.called and not any(tokens)
        known = not hidden and container.name not in recorder.unattributed
        reports.append(ExpertsReport(container.name, container.class_name, container.experts,
                                     tokens if known else None))
    return reports + _listed_expert_reports(recorder)


def _listed_expert_reports(recorder: _Recorder) -> list[ExpertsReport]:
    """Experts that are modules of their own, `<container>.experts.<i>.<linear>`."""
    rows: dict[str, dict[int, int]] = {}
    for name in recorder.linears:
        match = re.fullmatch(r"(.*\bexperts)\.(\d+)\..*", name)
        if match:
            experts = rows.setdefault(match.group(1), {})
            expert = int(match.group(2))
            experts[expert] = max(experts.get(expert, 0), recorder.rows.get(name, 0))
    return [ExpertsReport(name, "ModuleList", len(experts), [experts[i] for i in sorted(experts)])
            for name, experts in rows.items()]


def _unseen_modules(model: torch.nn.Module, recorder: _Recorder, containers: list[ExpertContainer],
                    amax: Mapping[str, float]) -> list[str]:
    """Linears without input, projections of containers that no expert computed, and attentions without K and V."""
    expected = {name: f"{name}.input_amax" for name in recorder.linears}
    for container in containers:
        expected.update({f"{container.name}.{p}": f"{container.name}.{p}.input_amax" for p in container.projections})
    attentions = [name for name, module in model.named_modules() if _is_attention(module)]
    expected.update({name: f"{name}.k_amax" for name in attentions})
    return [name for name, key in expected.items() if key not in amax]


def _is_attention(module: torch.nn.Module) -> bool:
    """As ModelOpt tells them: by the class's name, without one inside."""
    inner = (child for child in module.modules() if child is not module)
    return type(module).__name__.endswith("Attention") and not any(
        type(child).__name__.endswith("Attention") for child in inner)


def calibrate(model: torch.nn.Module, batches: Iterable[Any], out: Union[str, "os.PathLike[str]"], *,
              forward: Optional[Callable[[torch.nn.Module, Any], Any]] = None,
              progress: Union[Callable[[int, Optional[int]], object], bool, None] = None) -> CalibrationReport:
    """Runs `batches` through `model` and writes the calibration file for `quantport quantize --calibration`.

    The file is safetensors with F32 scalars, names as in memory: `<module>.input_amax`, the largest magnitude that a
    linear saw; the same of `<container>.gate_up_proj` (`up_proj` where there is no gate) and `<container>.down_proj`,
    one number for all experts of a container; `<attention>.k_amax` and `.v_amax`. It is that of ModelOpt's calibration
    with the algorithm `max`, and one file serves every recipe.

    Args:
        model: a transformers model with its weights, of the class that the checkpoint's config.json names; on any
            device, or spread with `device_map`.
        batches: any iterable of batches: dicts of the model's arguments, tensors of token ids `[batch, tokens]`, or
            tuples of tensors. Tensors are moved to the model's device. A single dict or tensor is one batch.
        out: the file to write. It appears when all is done, or not at all.
        forward: called as `forward(model, batch)` in place of `model(**batch)`.
        progress: called with the batches done and their number, None where the iterable does not tell. True is tqdm's
            bar, and None is it on a terminal, where tqdm is installed; False is nothing.

    Returns:
        A `CalibrationReport`: how many linears and attentions were seen, tokens for each expert, and what saw nothing.

    Raises:
        CalibrationError: no batches; an activation that is NaN or infinite (the message names the module).
        TypeError: a batch that can't be run without `forward`.
        OSError: the file can't be written; its folder is looked at before the first batch.

    Gradients are off and the model is in eval mode meanwhile. Hooks, the training mode and the implementation of
    experts are as before afterwards, also after an error.
    """
    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"the model is a {type(model).__name__}: calibrate needs a torch model")
    path = os.fsdecode(out)
    check_target(path)
    model = getattr(model, "_orig_mod", model)  # torch.compile's wrapper has other names, and runs no hooks
    containers = find_expert_containers(model)
    recorder = _Recorder(model, containers)
    device = _input_device(model)
    batches = [batches] if _single_batch(batches) else batches
    done, start = 0, time.monotonic()
    with _one_at_a_time, torch.no_grad(), _evaluating(model), eager_experts(containers), recorder.watching(), \
            _counting(progress, _length(batches)) as count:
        for batch in batches:
            forward(model, batch) if forward is not None else _run(model, batch, device)
            done += 1
            count(done)
    if done == 0:
        raise CalibrationError("there were no batches: a generator that was used up already gives none")
    amax = recorder.maxima.read()
    if not amax:
        raise CalibrationError("the batches reached no linear: does forward run the model?")
    write_calibration(path, amax)
    unseen = _unseen_modules(model, recorder, containers, amax)
    _warn_of_containers(containers, amax)
    return CalibrationReport(
        path=path, batches=done, seconds=time.monotonic() - start,
        linears=sum(f"{name}.input_amax" in amax for name in recorder.linears),
        attentions=sum(name.endswith(".k_amax") for name in amax),
        containers=_expert_reports(recorder, containers), unseen_modules=unseen)


def _warn_of_containers(containers: list[ExpertContainer], amax: Mapping[str, float]) -> None:
    missed = [c for c in containers if f"{c.name}.down_proj.input_amax" not in amax]
    if missed:
        warnings.warn(
            f"no expert of {listed(c.name for c in missed)} ({missed[0].class_name}) was seen: either no token reached "
            "them, or they do not compute with torch.nn.functional.linear; they get no input_scale", stacklevel=3)
