"""transformers' own conversions of small models, and the program beside them, for the tests of this folder.

A `Case` is one class: its real parameter names (instantiated on the meta device), layers and experts 0 and 1 only, with small
tensors. It reverts and loads with the functions that transformers itself saves and loads with, every transform at hand.
"""
import json
import os
import re
import subprocess
import sys
import tempfile
from copy import deepcopy

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, f"{ROOT}/tools")
import generate_mappings as generator  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from expert_counts import with_experts  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
from transformers.conversion_mapping import get_model_conversion_mapping  # noqa: E402
from transformers.core_model_loading import (  # noqa: E402
    SplitModulelist, WeightConverter, WeightRenaming, dot_natural_key, rename_source_key, revert_weight_conversion)

PROGRAM = os.environ.get("QUANTPORT", f"{ROOT}/build/release/quantport")
OUT, IN, EXPERTS = 96, 64, 2  # OUT divides by 2, 3 and 4, as fusions do, and by two halves of 16 heads, as rotations do


def kept(name):
    """Layers, experts and blocks 0 and 1 only: the others are named alike."""
    return all(int(part) < 2 for part in name.split(".") if part.isdigit())


def small(name, shape):
    """A shape of the same rank, unequal sizes."""
    if len(shape) == 3 and "expert" in name:
        return [EXPERTS, OUT, IN]
    if len(shape) == 3 and name.endswith("message_input.query"):
        return [OUT, 4, IN]  # query, key, value and MLP of each loop layer: the operation picks them by number
    return [OUT, IN, 3, 5, 2][:len(shape)]


def values(name, shape, dtype=torch.bfloat16):
    generator_ = torch.Generator().manual_seed(hash_name(name))
    if dtype in (torch.bfloat16, torch.float32):
        return torch.randn(shape, generator=generator_).to(dtype)
    return torch.randint(0, 120, shape, generator=generator_, dtype=torch.uint8)


def hash_name(name):
    value = 2166136261
    for c in name.encode():
        value = (value ^ c) * 16777619 & 0x7FFFFFFF
    return value


def write(folder, config, tensors, quantized):
    os.makedirs(folder)
    config = dict(config)
    if quantized:
        config["quantization_config"] = {"quant_method": "modelopt", "quant_algo": "NVFP4", "ignore": []}
    with open(f"{folder}/config.json", "w", encoding="utf-8") as f:
        json.dump(config, f)
    save_file({k: v.contiguous() for k, v in tensors.items()}, f"{folder}/model.safetensors", metadata={"format": "pt"})


def difference(got, want):
    """What is wrong with tensors read back, or None."""
    missing, more = sorted(set(want) - set(got)), sorted(set(got) - set(want))
    if missing or more:
        return f"{len(missing)} missing, {len(more)} unexpected: {missing[:2]} {more[:2]}"
    for name, tensor in want.items():
        other = got[name]
        if other.dtype != tensor.dtype or other.shape != tensor.shape:
            return f"{name}: {other.dtype} {list(other.shape)}, should be {tensor.dtype} {list(tensor.shape)}"
        if not same_bytes(other, tensor):
            return f"{name}: other bytes"
    return None


def same_bytes(a, b):
    return torch.equal(*(t.contiguous().view(torch.uint8) if t.dim() else t for t in (a, b)))


class Load:
    """What convert_and_load_state_dict_in_model makes of hub tensors, without setting the parameters of a model."""

    def __init__(self, model, names, tensors):
        self.renamed = {}  # hub name -> in-memory name, with the transforms that matched
        self.tensors = {}  # in-memory name -> tensor
        self.mapping = mapping = get_model_conversion_mapping(model, add_legacy=True)
        renamings = [t for t in mapping if isinstance(t, WeightRenaming)]
        converters = [t for t in mapping if isinstance(t, WeightConverter)]
        by_source = {source: converter for converter in converters for source in converter.source_patterns}
        prefix, meta, collected = model.base_model_prefix, dict.fromkeys(names, True), {}
        for hub in sorted(tensors, key=dot_natural_key):
            for transform in mapping:
                transform._was_used = False
            name, source = rename_source_key(hub, renamings, converters, prefix, meta)
            fired = [t for t in mapping if t.was_used()]
            if name not in names and hub in names:  # should not have been renamed
                (name, source), fired = rename_source_key(hub, [], [], prefix, meta), []
            self.renamed[hub] = name, fired
            if name not in names:
                continue  # transformers reports it as unexpected and leaves it out
            if source is None:
                transform, source = WeightRenaming(hub, name), hub
            else:
                transform = deepcopy(by_source[source])
            collected.setdefault(name, transform).add_tensor(name, hub, source, tensors[hub])
        for name, transform in collected.items():
            for target, tensor in transform.convert(name, model=model, config=model.config).items():
                self.tensors[target] = (tensor[0] if isinstance(tensor, list) else tensor).clone()

    def used(self):
        """For each transform, whether it matched some name; in load order, which is the model's own and then legacy ones."""
        fired = {id(t) for _, transforms in self.renamed.values() for t in transforms}
        return [id(t) in fired for t in self.mapping]


class Case:
    """One class: its model on the meta device, and what transformers makes of its tensors."""

    def __init__(self, name, model, config):
        self.name, self.model = name, model
        self.config = with_experts(config, EXPERTS) | {"architectures": [name]}
        model._weight_conversions = get_model_conversion_mapping(model, add_legacy=False)
        self.names = set(model.state_dict())
        self.shapes = {k: list(v.shape) for k, v in model.state_dict().items() if kept(k)}

    def has_mapping(self):
        return bool(self.model._weight_conversions)

    def float_inputs(self):
        return {k: values(k, small(k, s)) for k, s in self.shapes.items()}

    def revert(self, tensors):
        # Transpose(check_dims=True) compares with the model's own shapes; here the small tensors are the model.
        self.model.get_parameter = lambda name: tensors.get(name, torch.empty(0))
        return {k: v.clone() for k, v in revert_weight_conversion(self.model, dict(tensors)).items()}

    def load(self, tensors, parameters):
        """A Load of hub tensors into the model whose own tensors are `parameters`."""
        self.model.get_parameter = lambda name: parameters.get(name, torch.empty(0))
        return Load(self.model, self.names, tensors)

    def splits_experts(self, name):
        """True where the reversal takes this stacked parameter apart."""
        for conversion in self.model._weight_conversions:
            reverse = conversion.reverse_transform()
            if isinstance(reverse, WeightConverter) and any(isinstance(op, SplitModulelist) for op in reverse.operations):
                if reverse.rename_source_key(name)[1] is not None:
                    return True
        return False

    def quantized(self):
        """(export tensors, expected hub tensors), or None where the class has nothing to quantize or keeps experts fused."""
        linears = {f"{n}.weight" for n, m in self.model.named_modules() if isinstance(m, torch.nn.Linear)} & set(self.shapes)
        stacked = [n for n, s in self.shapes.items() if len(s) == 3 and re.search(r"\.experts\.(gate_up|up|down)_proj$", n)]
        if any(not self.splits_experts(n) for n in stacked) or not linears:
            return None
        export, stand_ins = {}, {kind: {} for kind in ("weight", "weight_scale", "weight_scale_2", "input_scale")}
        for name, shape in self.shapes.items():
            if name not in linears and name not in stacked:
                export[name] = values(name, small(name, shape))
        for name in linears:
            self.add_linear(name.removesuffix(".weight"), name.rsplit(".", 2)[0], OUT, export, stand_ins)
        for name in stacked:
            container, parameter = name.rsplit(".", 1)
            parts = ["gate_proj", "up_proj"] if parameter == "gate_up_proj" else [parameter]
            pieces = {kind: [] for kind in stand_ins}
            for expert in range(EXPERTS):
                made = {kind: {} for kind in stand_ins}
                for part in parts:
                    self.add_linear(f"{container}.{expert}.{part}", f"{container}.{expert}", OUT, export, made)
                for kind in stand_ins:
                    pieces[kind].append(torch.cat([made[kind][f"{container}.{expert}.{p}.weight"] for p in parts]))
            for kind in stand_ins:
                stand_ins[kind][name] = torch.stack(pieces[kind])
        plain = {k: v for k, v in export.items() if k in self.shapes and k not in linears}
        expected = {}
        for kind, tensors in stand_ins.items():
            with_others = tensors | (plain if kind == "weight" else {})
            for name, tensor in self.revert(with_others).items():
                if kind == "weight":
                    expected[name] = tensor
                    continue
                if not name.endswith(".weight"):
                    return None  # the hub has no module name to hang a scale on
                expected[name.removesuffix("weight") + kind] = tensor if kind == "weight_scale" else tensor.flatten()[0].clone()
        quantized_hub = {n.removesuffix("weight_scale") + "weight" for n in expected if n.endswith(".weight_scale")}
        for name in expected:
            if name.endswith("weight_scale"):
                expected[name] = expected[name].view(torch.float8_e4m3fn)
        return (export, expected) if quantized_hub <= set(expected) else None

    @staticmethod
    def add_linear(module, scalar_key, rows, export, stand_ins):
        """An NVFP4 linear in the export, and its stand-ins: scalars as one row value each, so that they can be cut."""
        export[f"{module}.weight"] = values(f"{module}.weight", [rows, IN // 2], torch.uint8)
        scale = values(f"{module}.weight_scale", [rows, IN // 16], torch.uint8)
        export[f"{module}.weight_scale"] = scale.view(torch.float8_e4m3fn)
        stand_ins["weight"][f"{module}.weight"] = export[f"{module}.weight"]
        stand_ins["weight_scale"][f"{module}.weight"] = scale
        for kind in ("weight_scale_2", "input_scale"):
            scalar = values(f"{scalar_key}.{kind}", [1], torch.float32)
            export[f"{module}.{kind}"] = scalar[0].clone()
            stand_ins[kind][f"{module}.weight"] = scalar.expand(rows, 2).contiguous()


def run(command, config, tensors, *options, hub=None, quantized=False):
    """What the program makes of `tensors`, {name: tensor}; or, where it fails, the status and the first error."""
    with tempfile.TemporaryDirectory() as folder:
        write(f"{folder}/in", config, tensors, quantized)
        arguments = [PROGRAM, command, f"{folder}/in", "-o", f"{folder}/out", "--transformers", transformers.__version__, *options]
        if hub is not None:
            write(f"{folder}/hub", config, hub, False)
            arguments += ["--reference", f"{folder}/hub"]
        elif command == "revert":
            arguments.append("--by-rules")  # what transformers gives, whatever hubs publish
        done = subprocess.run(arguments, capture_output=True, text=True)
        if done.returncode != 0:
            return f"exit {done.returncode}: {[line for line in done.stderr.splitlines() if line.startswith('error')][:1]}"
        return load_file(f"{folder}/out/model.safetensors")


def held_against(got, expected):
    """None where `got`, from run(), is what was expected, else what differs."""
    return got if isinstance(got, str) else difference(got, expected)


def unquantized(tensors):
    """The hub checkpoint whose quantized export, in hub names, `tensors` are: no companions, and logical shapes."""
    companions = (".weight_scale", ".weight_scale_2", ".input_scale")
    return {k: torch.zeros([*v.shape[:-1], v.shape[-1] * 2] if v.dtype == torch.uint8 else v.shape, dtype=torch.bfloat16)
            for k, v in tensors.items() if not k.endswith(companions)}


def by_reference(case, got, expected, hub, inputs):
    """held_against(); but no reference can have names that transformers itself does not load, so that must be refused."""
    if isinstance(got, str) and "ReferenceMismatchError" in got:
        lost = sorted(h for h, (name, _) in case.load(hub, inputs).renamed.items() if name not in case.names)
        if lost:
            return f"{GAVE_UP}its own load has no parameter for {len(lost)} of its reversed names: {lost[0]}"
    return held_against(got, expected)


def check_revert(case):
    """{kind: result} of one case, reverted float and quantized, with and without a reference."""
    inputs = case.float_inputs()
    try:
        expected = case.revert(inputs)
    except Exception as error:  # the oracle itself can't reverse these shapes
        return {"float": gave_up(error)}
    results = {"float": held_against(run("revert", case.config, inputs), expected),
               "float, reference": by_reference(case, run("revert", case.config, inputs, hub=expected), expected, expected, inputs)}
    try:
        quantized = case.quantized()
    except Exception as error:
        return results | {"quantized": gave_up(error)}
    if quantized:
        export, hub = quantized
        results["quantized"] = held_against(run("revert", case.config, export, quantized=True), hub)
        results["quantized, reference"] = by_reference(
            case, run("revert", case.config, export, hub=unquantized(hub), quantized=True), hub, expected, inputs)
    return results


GAVE_UP = "transformers: "


def gave_up(error):
    return f"{GAVE_UP}{type(error).__name__}: {str(error).splitlines()[0][:80] if str(error) else ''}"


class Tally:
    """Counts results by kind, and prints those that differ."""

    def __init__(self, verbose):
        self.verbose, self.totals, self.bad = verbose, {}, 0

    def add(self, name, results):
        for kind, result in results.items():
            oracle = isinstance(result, str) and result.startswith(GAVE_UP)
            state = "equal" if result is None else "oracle gives up" if oracle else "differ"
            self.totals.setdefault(kind, {}).setdefault(state, []).append(name)
            if state == "differ" or (self.verbose and state != "equal"):
                print(f"{name}, {kind}: {result}", flush=True)
            self.bad += state == "differ"

    def failed(self):
        for kind, states in self.totals.items():
            print(f"{kind}: " + ", ".join(f"{len(names)} {state}" for state, names in sorted(states.items())))
        return self.bad != 0 or not self.totals


def cases(match):
    """Every class of the auto mappings that has a conversion mapping."""
    transformers.logging.set_verbosity_error()
    generator.stand_in_for_optional_libraries()
    for name, (model_class, config_class) in generator.auto_models().items():
        if not re.search(match, name):
            continue
        try:
            config = generator.sample_config(model_class, config_class)
            case = Case(name, generator.build(model_class, config_class, config), config)
        except Exception:  # classes that can't be built are counted by tools/check_mappings.py
            continue
        if case.has_mapping():
            yield case
