#!/usr/bin/env python3
"""Records tests/golden/quantize: what ModelOpt's own mtq.quantize and export_hf_checkpoint make of tiny models on a CPU.

A folder per model:
    checkpoint.json          the hub checkpoint that was quantized: config.json and every tensor's name, dtype and shape;
                             values follow from the name (quantize_golden_models.fill); and the modules in memory that
                             carry quantizers, with the routers
    calibration.safetensors  the amax of every activation quantizer after calibration, in in-memory names
    RECIPE.json              the export: tensors with the CRC-32 of their bytes, both config files as they were written,
                             what each enabled quantizer was set to and each module's format, or the error
and cuda-exports.json: per model the calibration and, per recipe, the CRC-32 of every tensor's bytes, from a GPU;
and tied.json: the exports of models whose head is the embedding;
and recipes.json: ModelOpt's own reading of every recipe that the program carries under the same name.

Run by hand in an environment that has tools/oracle-requirements.txt:
    python3 tools/make_quantize_goldens.py [MODEL ...]
    python3 tools/make_quantize_goldens.py recipes  recipes.json alone
    python3 tools/make_quantize_goldens.py tied     tied.json alone
    python3 tools/make_quantize_goldens.py cuda     cuda-exports.json alone; needs a GPU, and nvcc for the searches
"""
import glob
import json
import os
import re
import shutil
import sys
import tempfile
import zlib

import torch
from safetensors import safe_open
from safetensors.torch import save_file

import modelopt
import modelopt.torch.quantization as mtq
import transformers
from modelopt.recipe.loader import load_recipe
from modelopt.torch.export import export_hf_checkpoint
from modelopt.torch.export.quant_utils import get_quantization_format, get_weight_block_size
from modelopt.torch.opt.config_loader import load_config
from modelopt.torch.quantization.config import QuantizeConfig
from modelopt.torch.quantization.conversion import replace_quant_module, set_quantizer_by_cfg
from modelopt.torch.quantization.nn import SequentialQuantizer, TensorQuantizer

import quantize_golden_models as tiny

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
OUT = f"{ROOT}/tests/golden/quantize"
# Recipes by the names under which the program carries them; general recipes first, then presets.
GENERAL = [
    "fp8_default-kv_fp8", "fp8_default-kv_fp8_cast", "nvfp4_default-kv_fp8_cast", "nvfp4_default-kv_nvfp4_cast",
    "nvfp4_mlp_only-kv_fp8_cast", "nvfp4_experts_only-kv_fp8_cast", "nvfp4_experts_only_input_scale1-kv_fp8_cast",
    "nvfp4_weight_only-kv_fp8_cast", "mxfp4_mlp_weight_only", "int4_blockwise_weight_only",
]
PRESETS = [
    "fp8", "fp8_per_channel_per_token", "fp8_2d_blockwise_weight_only", "w4a16_nvfp4", "w4a8_nvfp4_fp8", "mxfp8",
    "mxfp4", "int8_weight_only", "int8", "nvfp4_mlp_weight_only", "nvfp4_w4a4_weight_mse_fp8_sweep",
    "nvfp4_four_over_six", "w4a8_mxfp4_fp8", "mxint8", "mxfp6", "nvfp4_omlp_only",
]
OWN = {"mixed": "mixed.yaml", "mse": "mse.yaml", "mse_int4": "mse_int4.yaml"}  # beside the goldens
CUDA = {
    "llama": [
        "nvfp4_default-kv_fp8_cast", "nvfp4_weight_only-kv_fp8_cast", "fp8_per_channel_per_token",
        "fp8_2d_blockwise_weight_only", "w4a8_nvfp4_fp8", "mxfp8", "mxfp4", "int8_weight_only",
        "int4_blockwise_weight_only", "nvfp4_w4a4_weight_mse_fp8_sweep", "nvfp4_four_over_six",
    ],
    "qwen3_moe": [
        "nvfp4_default-kv_fp8_cast", "nvfp4_weight_only-kv_fp8_cast", "fp8_per_channel_per_token", "w4a8_nvfp4_fp8",
        "mxfp8", "mxfp4", "int8_weight_only", "nvfp4_w4a4_weight_mse_fp8_sweep", "nvfp4_four_over_six",
    ],
}
TIED_RECIPE = "w4a16_nvfp4"
DEVICE = "cuda" if sys.argv[1:] == ["cuda"] else "cpu"
CALIBRATION = "fp8_default-kv_fp8"  # enables every activation quantizer that a recipe here may need


def recipe_path(name):
    return f"general/ptq/{name}" if name in GENERAL else f"configs/ptq/presets/model/{name}"


def quantize_config(name):
    if name in OWN:
        return load_recipe(f"{OUT}/{OWN[name]}").quantize
    if name in GENERAL:
        return load_recipe(recipe_path(name)).quantize
    return load_config(recipe_path(name), schema_type=QuantizeConfig)


def dtype_name(dtype):
    return {torch.bfloat16: "BF16", torch.float32: "F32", torch.float16: "F16", torch.uint8: "U8", torch.int8: "I8",
            torch.float8_e4m3fn: "F8_E4M3", torch.int32: "I32", torch.int64: "I64"}[dtype]


def tensor_bytes(tensor):
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def make_checkpoint(name, folder, tied=False):
    """The hub checkpoint: names as transformers saves them, values by the rule."""
    tiny.build(name, tied).save_pretrained(folder)
    path = f"{folder}/model.safetensors"
    with safe_open(path, "pt") as f:
        shapes = {key: (f.get_tensor(key).dtype, list(f.get_tensor(key).shape)) for key in f.keys()}
    save_file({key: tiny.fill(key, shape).to(dtype) for key, (dtype, shape) in shapes.items()}, path, {"format": "pt"})
    with open(f"{folder}/config.json", encoding="utf-8") as f:
        config = f.read()
    return {"transformers": transformers.__version__, "config": config,
            "tensors": [[key, dtype_name(dtype), shape] for key, (dtype, shape) in sorted(shapes.items())]}


def calibrate(model):
    tokens = torch.arange(64, dtype=torch.int64).reshape(2, 32) * 7 % 61
    model(input_ids=tokens.to(DEVICE))


def quantizer_list(quantizer):
    return list(quantizer) if isinstance(quantizer, SequentialQuantizer) else [quantizer]


def setting(quantizer):
    blocks = quantizer.block_sizes
    axis = quantizer.axis
    return {"num_bits": quantizer.num_bits, "axis": axis,
            "block_sizes": None if blocks is None else {str(k): v for k, v in blocks.items() if v is not None or k == -1},
            "dynamic": quantizer._dynamic, "constant_amax": quantizer._constant_amax,
            "use_constant_amax": quantizer._use_constant_amax}


def is_quantizer(module):
    return isinstance(module, (TensorQuantizer, SequentialQuantizer))


def quantizers_of(module):
    """Name below the module -> quantizer; those of a fused container's experts are numbered."""
    if is_quantizer(module) or isinstance(module, torch.nn.ModuleList):  # a list belongs to the module above it
        return {}
    out = {}
    for child, item in module.named_children():
        if is_quantizer(item):
            out[child] = item
        elif isinstance(item, torch.nn.ModuleList) and len(item) and is_quantizer(item[0]):
            out |= {f"{child}.{i}": q for i, q in enumerate(item)}
    return out


def described_modules(model):
    """Every module that carries quantizers, in the order of named_modules."""
    out = []
    for name, module in model.named_modules():
        names = [re.sub(r"\.\d+$", "", q) for q in quantizers_of(module)]
        if not names:
            continue
        fused = any(q.endswith("_quantizers") for q in names)
        kind = "fused_experts" if fused else "batched_experts" if "gate_up_proj_weight_quantizer" in names else \
            "attention" if "k_bmm_quantizer" in names else \
            "weighted" if "weight_quantizer" in names else "input"
        entry = {"name": name, "class": re.sub("^Quant", "", type(module).__name__), "kind": kind,
                 "quantizers": list(dict.fromkeys(names))}
        if fused:
            entry |= {"experts": names.count("down_proj_weight_quantizers"), "first_projection": module._first_proj_attr}
        out.append(entry)
    return out


def resolved(model):
    """What every enabled quantizer was set to, and the format that ModelOpt sees in every module with weights."""
    settings, quantizers, formats = [], {}, {}
    for name, module in model.named_modules():
        for child, quantizer in quantizers_of(module).items():
            parts = quantizer_list(quantizer)
            if not all(part.is_enabled for part in parts):
                continue
            value = [setting(part) for part in parts]
            if value not in settings:
                settings.append(value)
            quantizers[f"{name}.{child}"] = settings.index(value)
        weights = [q for q in quantizers_of(module) if "weight_quantizer" in q]
        if weights:
            weight = "weight" if weights[0] == "weight_quantizer" else weights[0].split("_weight")[0]
            formats[name] = [get_quantization_format(module), get_weight_block_size(module, weight)]
    return {"settings": settings, "quantizers": quantizers, "formats": formats}


def resolve(model_name, source, config):
    """The quantizers as the recipe sets them: calibration turns some settings into others."""
    model = tiny.load(model_name, source).to(DEVICE)
    replace_quant_module(model)
    set_quantizer_by_cfg(model, config.quant_cfg)
    return resolved(model)


def routers(model):
    from modelopt.torch.export.quant_utils import _get_unquantized_moe_router_names
    return _get_unquantized_moe_router_names(model)


def activation_amax(model):
    """`<module>.input_amax`, `.k_amax`, `.v_amax`; a fused container's first projection and down_proj are modules."""
    amax = {}
    for name, quantizer in model.named_modules():
        if not isinstance(quantizer, TensorQuantizer) or not quantizer.is_enabled:
            continue
        value = getattr(quantizer, "_amax", None)
        if value is None or "weight_quantizer" in name:
            continue
        module, leaf = name.rsplit(".", 1)
        for end, key in (("k_bmm_quantizer", "k_amax"), ("v_bmm_quantizer", "v_amax"), ("input_quantizer", "input_amax")):
            if leaf.endswith(end):
                projection = leaf[:-len(end)].rstrip("_")
                amax[".".join(filter(None, (module, projection, key)))] = value.detach().float().reshape(())
    return amax


def export(model_name, recipe, source, folder):
    """One golden, the amax of its activations and the model's modules; ModelOpt's own failure is a golden as well."""
    model = tiny.load(model_name, source).to(DEVICE)
    golden = {"modelopt": modelopt.__version__, "recipe": OWN.get(recipe, recipe_path(recipe))}
    config = quantize_config(recipe)
    step = "mtq.quantize"
    try:
        golden |= resolve(model_name, source, config)
        mtq.quantize(model, config, forward_loop=calibrate)
        modules = {"modules": described_modules(model), "routers": routers(model)}  # the export takes containers apart
        amax = activation_amax(model)
        step = "export_hf_checkpoint"
        export_hf_checkpoint(model, export_dir=folder)
    except Exception as error:  # whatever ModelOpt raises is what is to be known
        return golden | {"error": f"{step}: {type(error).__name__}: {error}".replace(folder, "OUT")}, {}, None
    with safe_open(f"{folder}/model.safetensors", "pt") as f:
        tensors = {key: f.get_tensor(key) for key in sorted(f.keys())}
    golden["tensors"] = [[key, dtype_name(t.dtype), list(t.shape), zlib.crc32(tensor_bytes(t))] for key, t in tensors.items()]
    for file in ("config.json", "hf_quant_config.json"):
        path = f"{folder}/{file}"
        golden[file] = open(path, encoding="utf-8").read() if os.path.exists(path) else None
    scalars = {key: float(t) for key, t in tensors.items() if t.dim() == 0 and t.dtype == torch.float32}
    return golden | {"scalars": scalars}, amax, modules


def compact(value, indent=0, width=150):
    """JSON with a value on one line where it fits, so that changes can be read."""
    text = json.dumps(value, ensure_ascii=False)
    if len(text) <= width or not isinstance(value, (dict, list)) or not value:
        return text
    keys = [json.dumps(key, ensure_ascii=False) + ": " for key in value] if isinstance(value, dict) else [""] * len(value)
    items = list(value.values()) if isinstance(value, dict) else value
    inner = ",\n".join(" " * (indent + 1) + key + compact(item, indent + 1, width) for key, item in zip(keys, items))
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    return f"{opening}\n{inner}\n{' ' * indent}{closing}"


def write_json(path, value):
    with open(path, "w", encoding="utf-8") as f:
        f.write(compact(value) + "\n")


def make_model(name):
    folder = f"{OUT}/{name}"
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    with tempfile.TemporaryDirectory() as work:
        checkpoint = make_checkpoint(name, f"{work}/hub")
        known = {}
        for recipe in [CALIBRATION] + [r for r in GENERAL + PRESETS + list(OWN) if r != CALIBRATION]:
            golden, amax, modules = export(name, recipe, f"{work}/hub", f"{work}/{recipe}")
            if not known:
                known = amax
                write_json(f"{folder}/checkpoint.json", checkpoint | modules)
                save_file(known, f"{folder}/calibration.safetensors")
            # Calibration runs on unquantized values, so that one file serves every recipe; constants are not in it.
            golden["amax_differs"] = {k: float(v) for k, v in amax.items() if k not in known or v != known[k]}
            write_json(f"{folder}/{recipe}.json", golden)
            print(name, recipe, golden.get("error", len(golden.get("tensors", []))), golden["amax_differs"], flush=True)


def make_recipes():
    """ModelOpt's own reading of the recipes, presets and KV presets, by name."""
    root = os.path.join(os.path.dirname(sys.modules["modelopt_recipes"].__file__))
    out = {}
    for group, under in (("general", "general/ptq"), ("model", "configs/ptq/presets/model"), ("kv", "configs/ptq/presets/kv")):
        for file in sorted(os.listdir(f"{root}/{under}")):
            name = file.removesuffix(".yaml")
            config = load_recipe(f"{under}/{name}").quantize if group == "general" else \
                load_config(f"{under}/{name}", schema_type=QuantizeConfig)
            out[f"{group}/{name}"] = config.model_dump(mode="json", exclude_defaults=True)
    # Those for training and for single models, by their paths; snippets that they import are no recipes.
    for path in sorted(glob.glob("general/qad/*.yaml", root_dir=root) + glob.glob("huggingface/*/ptq/*.yaml", root_dir=root) +
                       glob.glob("models/*/*/ptq/*.yaml", root_dir=root)):
        with open(f"{root}/{path}", encoding="utf-8") as f:
            if "recipe_type: ptq" not in f.read():
                continue
        config = load_recipe(path.removesuffix(".yaml")).quantize
        out[path.removesuffix(".yaml")] = config.model_dump(mode="json", exclude_defaults=True)
    write_json(f"{OUT}/recipes.json", {"modelopt": modelopt.__version__, "recipes": out})


def make_tied():
    """What the export writes of models whose head is the embedding, in one file: weights alone, so without calibration."""
    out = {}
    for name in tiny.TIED_MODELS:
        with tempfile.TemporaryDirectory() as work:
            checkpoint = make_checkpoint(name, f"{work}/hub", tied=True)
            model = tiny.load(name, f"{work}/hub")
            mtq.quantize(model, quantize_config(TIED_RECIPE))
            export_hf_checkpoint(model, export_dir=f"{work}/out")
            with safe_open(f"{work}/out/model.safetensors", "pt") as f:
                tensors = [[key, dtype_name(t.dtype), list(t.shape), zlib.crc32(tensor_bytes(t))]
                           for key, t in ((key, f.get_tensor(key)) for key in sorted(f.keys()))]
            lists = {}
            for file, section, key in (("config.json", "quantization_config", "ignore"),
                                       ("hf_quant_config.json", "quantization", "exclude_modules")):
                with open(f"{work}/out/{file}", encoding="utf-8") as f:
                    lists[file] = json.load(f)[section][key]
            out[name] = {"checkpoint": checkpoint, "export": tensors, "excluded": lists}
    write_json(f"{OUT}/tied.json", {"modelopt": modelopt.__version__, "recipe": TIED_RECIPE, "models": out})


def make_cuda():
    out = {}
    for name, names in CUDA.items():
        with tempfile.TemporaryDirectory() as work:
            make_checkpoint(name, f"{work}/hub")
            exports = {recipe: export(name, recipe, f"{work}/hub", f"{work}/{recipe}") for recipe in [CALIBRATION] + names}
        out[name] = {"calibration": {key: float(value) for key, value in exports[CALIBRATION][1].items()},
                     "exports": {recipe: {key: crc for key, _, _, crc in golden["tensors"]}
                                 for recipe, (golden, _, _) in exports.items()}}
    write_json(f"{OUT}/cuda-exports.json", out)


def main():
    import modelopt_recipes  # noqa: F401  named in make_recipes
    os.makedirs(OUT, exist_ok=True)
    if DEVICE == "cuda":
        make_cuda()
        return
    if sys.argv[1:] != ["tied"]:
        make_recipes()
    if not sys.argv[1:] or sys.argv[1:] == ["tied"]:
        make_tied()
    for name in [] if sys.argv[1:] in (["recipes"], ["tied"]) else sys.argv[1:] or tiny.MODELS:
        make_model(name)


if __name__ == "__main__":
    main()
