#!/usr/bin/env python3
"""Records tests/golden/layouts: small checkpoints of each quantized format, made by the format's own exporter.

A fused weight W is quantized by the exporter, and so is each part that reverting should cut from it, with the
parameters that span the whole weight (a per-tensor scale, a global scale, a smoothing vector) taken from W's. What the
exporter stores for the part is what the test expects. Every case says which function made its bytes.

Run by hand as `make_layout_goldens.py [CASE ...]`, where the exporters are; formats without their package are left out.
"""
import copy
import importlib
import json
import os
import shutil
import sys
import types

import torch
from safetensors.torch import save_file

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
OUT = f"{ROOT}/tests/golden/layouts"
LAYER, HUB = "model.layers.0", "transformer.h.0"
CASES = {}

# What transformers' mappings do to fused and stacked weights, in small: see docs/mappings.md.
MAPPING = {
    "format": 1, "library": "layout goldens", "version": "1",
    "conversions": {"golden": [
        {"type": "WeightRenaming", "source_patterns": [r"^transformer\.h\."], "target_patterns": ["model.layers."]},
        {"type": "WeightConverter", "source_patterns": ["attn.q.weight", "attn.k.weight", "attn.v.weight"],
         "target_patterns": ["attn.qkv.weight"], "operations": [{"op": "Concatenate", "dim": 0}]},
        {"type": "WeightConverter", "source_patterns": ["mlp.gate.weight", "mlp.up.weight"],
         "target_patterns": ["mlp.gate_up.weight"], "operations": [{"op": "Concatenate", "dim": 0}]},
        {"type": "WeightConverter",
         "source_patterns": ["experts.*.gate.weight", "experts.*.up.weight"],
         "target_patterns": ["experts.gate_up_proj"],
         "operations": [{"op": "MergeModulelist", "dim": 0}, {"op": "Concatenate", "dim": 1}]},
        {"type": "WeightConverter", "source_patterns": ["experts.*.down.weight"],
         "target_patterns": ["experts.down_proj"], "operations": [{"op": "MergeModulelist", "dim": 0}]},
        {"type": "WeightConverter", "source_patterns": ["packed.*.down_proj"],
         "target_patterns": ["packed.down_proj"], "operations": [{"op": "MergeModulelist", "dim": 0}]}]},
    "classes": {"GoldenForCausalLM": {"model_type": "golden", "base_model_prefix": "model"}},
}


def case(name, layout):
    """Registers a function that returns {"quantization_config", "made_by", "export", "expected"}."""
    def register(function):
        CASES[name] = (layout, function)
        return function
    return register


def values(*shape, seed=0, dtype=torch.bfloat16):
    """Weights whose rows differ in size, so that every row and every group has a scale of its own."""
    generator = torch.Generator().manual_seed(1000 + seed)
    weight = torch.randn(*shape, generator=generator)
    sizes = torch.rand(*shape[:-1], 1, generator=generator) * 3 + 0.25
    return (weight * sizes * 0.05).to(dtype)


def under(module, leaves):
    return {f"{module}.{leaf}": tensor.contiguous().clone() for leaf, tensor in leaves.items()}


def linears(quantize, rows=(16, 16, 16), inputs=128, dtype=torch.bfloat16):
    """Tensors in memory and on the hub of q, k and v that are fused in memory, and of a linear that is renamed only.

    `quantize(weight, whole)` gives a linear's leaves and a state; `whole` is the state of the fused weight, for a part.
    """
    fused, alone = values(sum(rows), inputs, dtype=dtype), values(rows[0], inputs, seed=1, dtype=dtype)
    leaves, state = quantize(fused, None)
    export = under(f"{LAYER}.attn.qkv", leaves)
    expected = {}
    for part, weight in zip("qkv", torch.split(fused, list(rows))):
        expected |= under(f"{HUB}.attn.{part}", quantize(weight, state)[0])
    kept = quantize(alone, None)[0]
    export |= under(f"{LAYER}.attn.o", kept)
    expected |= under(f"{HUB}.attn.o", kept)
    head = {"lm_head.weight": values(4, 8, seed=2)}
    return export | head, expected | head


def stub_attribute(name):
    if name.startswith("__"):
        raise AttributeError(name)
    return type(name, (), {})


def stub(name):
    """Stands in for a package that an exporter imports but does not need for packing."""
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__getattr__ = stub_attribute


def package_without_init(name, path):
    """A package whose __init__ imports half the world: its modules can be imported, it is not run."""
    module = types.ModuleType(name)
    module.__path__ = [path]
    sys.modules[name] = module


# ---- ModelOpt ------------------------------------------------------------------------------------------------------


def modelopt_export(config_name, rows=(16, 16, 16), inputs=128, smooth=False, lora=0):
    import modelopt.torch.quantization as mtq
    from modelopt.torch.export import convert_hf_config, quant_utils, unified_export_hf

    config = copy.deepcopy(getattr(mtq, config_name))
    if smooth or lora:
        config["algorithm"] = "max"  # the search is not what is recorded; the scales are set below
    activations = values(8, inputs, seed=3)

    def export(weight, whole):
        model = torch.nn.Module()
        model.proj = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False, dtype=weight.dtype)
        model.proj.weight.data = weight.clone()
        model.forward = lambda x: model.proj(x)
        model = mtq.quantize(model, config, forward_loop=lambda m: m(activations))
        linear = model.proj
        quantizer = linear.weight_quantizer
        stages = list(quantizer) if hasattr(quantizer, "__getitem__") else [quantizer]
        if whole is not None:
            for stage, amax in zip(stages, whole["amax"]):
                if amax is not None and amax.numel() == 1:
                    stage.amax = amax
        if smooth:
            linear.input_quantizer.pre_quant_scale = 0.5 + values(inputs, 1, seed=4).flatten().abs()
        if lora:
            factors = (values(lora, inputs, seed=5), values(sum(rows), lora, seed=6))
            begin = 0 if whole is None else whole["next"]
            stages[0]._svdquant_lora_a = factors[0]
            stages[0]._svdquant_lora_b = factors[1][begin:begin + weight.shape[0]]
            if whole is not None:
                whole["next"] = begin + weight.shape[0]
        state = {"amax": [getattr(stage, "_amax", None) for stage in stages], "next": 0,
                 "config": quant_utils.get_quant_config(model)}
        unified_export_hf._export_quantized_weight(linear, weight.dtype)
        stored = quant_utils.postprocess_state_dict(model.state_dict(), 448.0, None)
        leaves = {name.removeprefix("proj."): tensor for name, tensor in stored.items()}
        if config_name == "FP8_2D_BLOCKWISE_WEIGHT_ONLY_CFG" and leaves["weight_scale"].dim() == 0:
            # A weight of one tile loses all dimensions of its scale on the way; those of two tiles or more keep them.
            leaves["weight_scale"] = leaves["weight_scale"].reshape(1, 1, 1, 1)
        if lora:
            leaves |= {f"svdquant_lora_{k}": getattr(stages[0], f"_svdquant_lora_{k}") for k in "ab"}
            leaves = {name: t for name, t in leaves.items() if "weight_quantizer" not in name}
        return leaves, state

    described = export(values(16, inputs), None)[1]["config"]
    described["quantization"]["exclude_modules"] = ["lm_head"]
    export_tensors, expected = linears(export, rows, inputs)
    return {"quantization_config": convert_hf_config.convert_hf_quant_config_format(copy.deepcopy(described)),
            "hf_quant_config": described, "export": export_tensors, "expected": expected,
            "made_by": f"modelopt {importlib.import_module('modelopt').__version__}: mtq.quantize(model, {config_name}), "
                       "unified_export_hf._export_quantized_weight, get_quant_config, convert_hf_quant_config_format"
                       + ("; pre_quant_scale set by hand" if smooth else "")
                       + ("; low-rank factors set by hand" if lora else "")}


def modelopt_case(name, layout, config_name, **options):
    case(name, layout)(lambda: modelopt_export(config_name, **options))


modelopt_case("modelopt-nvfp4", "NVFP4", "NVFP4_DEFAULT_CFG")
modelopt_case("modelopt-w4a16-nvfp4", "W4A16_NVFP4", "W4A16_NVFP4_CFG")
modelopt_case("modelopt-nvfp4-awq", "NVFP4_AWQ", "NVFP4_DEFAULT_CFG", smooth=True)
modelopt_case("modelopt-nvfp4-svd", "NVFP4_SVD", "NVFP4_DEFAULT_CFG", smooth=True, lora=4)
modelopt_case("modelopt-w4a8-nvfp4-fp8", "W4A8_NVFP4_FP8", "W4A8_NVFP4_FP8_CFG")
modelopt_case("modelopt-mxfp8", "MXFP8", "MXFP8_DEFAULT_CFG")
modelopt_case("modelopt-mxfp4", "MXFP4", "MXFP4_DEFAULT_CFG")
modelopt_case("modelopt-w4a8-mxfp4-fp8", "W4A8_MXFP4_FP8", "W4A8_MXFP4_FP8_CFG")
modelopt_case("modelopt-int4-blockwise", "W4A16_AWQ", "INT4_BLOCKWISE_WEIGHT_ONLY_CFG")
modelopt_case("modelopt-int4-awq", "W4A16_AWQ", "INT4_AWQ_CFG", smooth=True)
modelopt_case("modelopt-w4a8-awq", "W4A8_AWQ", "W4A8_AWQ_BETA_CFG", smooth=True)
modelopt_case("modelopt-int8-sq", "W8A8_SQ_PER_CHANNEL", "INT8_SMOOTHQUANT_CFG", smooth=True)
modelopt_case("modelopt-w8a16", "W8A16", "INT8_WEIGHT_ONLY_CFG")
modelopt_case("modelopt-fp8", "FP8", "FP8_DEFAULT_CFG")
modelopt_case("modelopt-fp8-pc-pt", "FP8_PER_CHANNEL_PER_TOKEN", "FP8_PER_CHANNEL_PER_TOKEN_CFG")
modelopt_case("modelopt-fp8-pb-wo", "FP8_BLOCK", "FP8_2D_BLOCKWISE_WEIGHT_ONLY_CFG", rows=(128, 128, 128))


# ---- compressed-tensors --------------------------------------------------------------------------------------------


def compressed_tensors_case(name, layout, form, weights, activations=None, rows=(32, 32, 32)):
    @case(name, layout)
    def make():
        import compressed_tensors
        from compressed_tensors.compressors.base import BaseCompressor
        from compressed_tensors.quantization import QuantizationArgs, QuantizationConfig, QuantizationScheme
        from compressed_tensors.quantization.utils import calculate_qparams, generate_gparam

        args = QuantizationArgs(**weights)
        inputs = QuantizationArgs(**activations) if activations else None
        scheme = QuantizationScheme(targets=["Linear"], weights=args, input_activations=inputs, format=form)
        compressor = BaseCompressor.get_value_from_registry(form)

        def blocks(weight):
            """min and max of what shares a scale, in the shape of the scales."""
            out, width = weight.shape
            if args.strategy == "tensor":
                return weight.min().reshape(1), weight.max().reshape(1)
            if args.strategy == "channel":
                return weight.amin(1, keepdim=True), weight.amax(1, keepdim=True)
            if args.strategy == "block":
                m, n = args.block_structure
                tiles = weight.reshape(out // m, m, width // n, n)
                return tiles.amin((1, 3)), tiles.amax((1, 3))
            groups = weight.reshape(out, -1, args.group_size)
            return groups.amin(2), groups.amax(2)

        def quantize(weight, whole):
            state = {"weight": weight.clone()}
            extent = blocks(weight)
            if args.strategy == "tensor" and whole is not None:
                extent = whole["extent"]
            if args.strategy == "tensor_group":
                gparam = generate_gparam(*[t.reshape(1) for t in torch.aminmax(weight)])
                state["weight_global_scale"] = gparam if whole is None else whole["global"]
            scale, zero = calculate_qparams(*extent, args, state.get("weight_global_scale"))
            state |= {"weight_scale": scale, "weight_zero_point": zero}
            if inputs is not None and inputs.strategy == "tensor_group" and inputs.dynamic != True:  # noqa: E712
                state["input_global_scale"] = torch.tensor([123.0])
            if inputs is not None and inputs.strategy == "tensor" and not inputs.dynamic:
                state["input_scale"] = torch.tensor([0.015], dtype=weight.dtype)
            leaves = compressor.compress(state, scheme)
            return leaves, {"extent": extent, "global": state.get("weight_global_scale")}

        export, expected = linears(quantize, rows)
        config = QuantizationConfig(config_groups={"group_0": scheme}, ignore=["lm_head"], format=form,
                                    quantization_status="compressed").model_dump(mode="json")
        config |= {"quant_method": "compressed-tensors"}
        return {"quantization_config": config, "export": export, "expected": expected,
                "made_by": f"compressed-tensors {compressed_tensors.__version__}: calculate_qparams and "
                           f"{compressor.__name__}.compress"}


CT_INT = {"type": "int", "symmetric": True}
CT_FP4 = {"num_bits": 4, "type": "float", "symmetric": True}
CT_FP8 = {"num_bits": 8, "type": "float", "symmetric": True}
compressed_tensors_case("ct-float-tensor", "FP8", "float-quantized", CT_FP8 | {"strategy": "tensor"},
                        CT_FP8 | {"strategy": "tensor"})
compressed_tensors_case("ct-float-channel", "FP8_PER_CHANNEL_PER_TOKEN", "float-quantized",
                        CT_FP8 | {"strategy": "channel"}, CT_FP8 | {"strategy": "token", "dynamic": True})
compressed_tensors_case("ct-float-block", "FP8_BLOCK", "float-quantized",
                        CT_FP8 | {"strategy": "block", "block_structure": [16, 32]},
                        CT_FP8 | {"strategy": "group", "group_size": 32, "dynamic": True})
compressed_tensors_case("ct-int8", "int-quantized", "int-quantized", CT_INT | {"num_bits": 8, "strategy": "channel"},
                        CT_INT | {"num_bits": 8, "strategy": "token", "dynamic": True})
compressed_tensors_case("ct-int8-asymmetric", "int-quantized", "int-quantized",
                        {"type": "int", "symmetric": False, "num_bits": 8, "strategy": "channel"})
compressed_tensors_case("ct-naive-int8-group", "int-quantized", "naive-quantized",
                        CT_INT | {"num_bits": 8, "strategy": "group", "group_size": 32})
compressed_tensors_case("ct-pack-int4", "pack-quantized", "pack-quantized",
                        CT_INT | {"num_bits": 4, "strategy": "group", "group_size": 32})
compressed_tensors_case("ct-pack-int4-asymmetric", "pack-quantized", "pack-quantized",
                        {"type": "int", "symmetric": False, "num_bits": 4, "strategy": "group", "group_size": 32})
compressed_tensors_case("ct-pack-int3-asymmetric", "pack-quantized", "pack-quantized",
                        {"type": "int", "symmetric": False, "num_bits": 3, "strategy": "channel"})
compressed_tensors_case("ct-pack-int4-tensor-asymmetric", "pack-quantized", "pack-quantized",
                        {"type": "int", "symmetric": False, "num_bits": 4, "strategy": "tensor"})
compressed_tensors_case("ct-nvfp4", "nvfp4-pack-quantized", "nvfp4-pack-quantized",
                        CT_FP4 | {"strategy": "tensor_group", "group_size": 16},
                        CT_FP4 | {"strategy": "tensor_group", "group_size": 16, "dynamic": "local"})
compressed_tensors_case("ct-mxfp4", "mxfp4-pack-quantized", "mxfp4-pack-quantized",
                        CT_FP4 | {"strategy": "group", "group_size": 32, "scale_dtype": "torch.uint8",
                                  "zp_dtype": "torch.uint8"})
compressed_tensors_case("ct-mxfp8", "MXFP8", "mxfp8-quantized",
                        CT_FP8 | {"strategy": "group", "group_size": 32, "scale_dtype": "torch.uint8",
                                  "zp_dtype": "torch.uint8"})


# ---- transformers: fine-grained FP8 and gpt-oss --------------------------------------------------------------------


def fine_grained(block, scale_fmt="float"):
    import transformers
    from transformers import FineGrainedFP8Config
    from transformers.integrations.finegrained_fp8 import Fp8Quantize

    config = FineGrainedFP8Config(weight_block_size=block, modules_to_not_convert=["lm_head"], scale_fmt=scale_fmt)
    quantizer = Fp8Quantize(types.SimpleNamespace(quantization_config=config))

    def quantize(weight, whole):
        stored = quantizer.convert({"m.weight": weight})
        return {name.removeprefix("m."): tensor for name, tensor in stored.items()}, None

    export, expected = linears(quantize, (32, 32, 32))
    gate_up, down = values(3, 64, 64, seed=7), values(3, 64, 32, seed=8)
    for name, weight in (("gate_up_proj", gate_up), ("down_proj", down)):
        export |= quantizer.convert({f"{LAYER}.experts.{name}": weight})
    for i in range(3):
        gate, up = gate_up[i].chunk(2)
        for linear, weight in (("gate", gate), ("up", up), ("down", down[i])):
            expected |= quantizer.convert({f"{HUB}.experts.{i}.{linear}.weight": weight.contiguous()})
    return {"quantization_config": config.to_dict(), "export": export, "expected": expected,
            "made_by": f"transformers {transformers.__version__}: finegrained_fp8.Fp8Quantize.convert"}


case("fine-grained-fp8", "FP8_BLOCK")(lambda: fine_grained([16, 32]))
case("fine-grained-fp8-ue8m0", "FP8_BLOCK")(lambda: fine_grained([16, 32], "ue8m0"))


@case("gpt-oss-mxfp4", "MXFP4_BLOCKS")
def gpt_oss():
    """Every byte is a valid encoding, so that the blocks are any bytes; transformers' decoder says what they mean."""
    import transformers
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors

    generator = torch.Generator().manual_seed(9)
    blocks = torch.randint(0, 256, (3, 32, 2, 16), generator=generator, dtype=torch.uint8)
    scales = torch.randint(118, 130, (3, 32, 2), generator=generator, dtype=torch.uint8)
    whole = convert_moe_packed_tensors(blocks, scales)
    export = {f"{LAYER}.packed.down_proj_blocks": blocks, f"{LAYER}.packed.down_proj_scales": scales,
              "lm_head.weight": values(4, 8, seed=2)}
    expected = {"lm_head.weight": values(4, 8, seed=2)}
    for i in range(3):
        assert torch.equal(convert_moe_packed_tensors(blocks[i:i + 1], scales[i:i + 1])[0], whole[i])
        expected[f"{HUB}.packed.{i}.down_proj_blocks"] = blocks[i].clone()
        expected[f"{HUB}.packed.{i}.down_proj_scales"] = scales[i].clone()
    config = {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]}
    return {"quantization_config": config, "export": export, "expected": expected, "module": "packed.down_proj_blocks",
            "made_by": f"transformers {transformers.__version__}: no packer runs on a CPU; any bytes, held to "
                       "mxfp4.convert_moe_packed_tensors, which decodes an expert's part to the expert's values"}


# ---- GPTQ, AWQ, bitsandbytes, Quark --------------------------------------------------------------------------------


def group_range(weight, group, bits):
    """Scales and zero points [out, groups] of asymmetric integers, min-max."""
    groups = weight.float().reshape(weight.shape[0], -1, group)
    low, high = groups.amin(2).clamp(max=0), groups.amax(2).clamp(min=0)
    scale = ((high - low) / (2 ** bits - 1)).half().float().clamp(min=1e-4)
    return scale, (-low / scale).round().clamp(1, 2 ** bits - 1)


def gptq(bits, order):
    import gptqmodel
    from gptqmodel.nn_modules.qlinear.torch import TorchLinear

    group = 64

    def quantize(weight, whole):
        out, width = weight.shape
        layer = TorchLinear(bits=bits, group_size=group, sym=False, desc_act=order, in_features=width,
                            out_features=out, bias=False, pack_dtype=torch.int32, register_buffers=True)
        linear = torch.nn.Linear(width, out, bias=False)
        linear.weight.data = weight.float()
        scale, zero = group_range(weight, group, bits)
        index = torch.arange(width, dtype=torch.int32) // group
        if order:
            index = index[torch.randperm(width, generator=torch.Generator().manual_seed(10))]
        layer.pack_original(linear, scale, zero, index.clone())
        return {leaf: getattr(layer, leaf) for leaf in ("qweight", "qzeros", "scales", "g_idx")}, None

    export, expected = linears(quantize, (32, 32, 32), dtype=torch.float16)
    config = {"quant_method": "gptq", "bits": bits, "group_size": group, "desc_act": order, "sym": False,
              "lm_head": False, "checkpoint_format": "gptq_v2", "pack_dtype": "int32"}
    return {"quantization_config": config, "export": export, "expected": expected,
            "made_by": f"gptqmodel {gptqmodel.__version__}: TorchLinear.pack_original with min-max scales"}


for width in (2, 3, 4, 8):
    case(f"gptq-{width}bit", "GPTQ")(lambda width=width: gptq(width, False))
case("gptq-4bit-order", "GPTQ")(lambda: gptq(4, True))


@case("awq-gemm", "AWQ")
def awq():
    folder = importlib.util.find_spec("awq").submodule_search_locations[0]
    package_without_init("awq", folder)
    package_without_init("awq.modules", f"{folder}/modules")
    package_without_init("awq.modules.linear", f"{folder}/modules/linear")
    package_without_init("awq.utils", f"{folder}/utils")
    gemm = importlib.import_module("awq.modules.linear.gemm")
    group = 32

    def quantize(weight, whole):
        linear = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False)
        linear.weight.data = weight.float()
        scale, zero = group_range(weight, group, 4)
        packed = gemm.WQLinear_GEMM.from_linear(linear, 4, group, scales=scale.t().contiguous(),
                                                zeros=zero.t().contiguous())
        return {leaf: getattr(packed, leaf) for leaf in ("qweight", "qzeros", "scales")}, None

    export, expected = linears(quantize, (32, 32, 32), dtype=torch.float16)
    config = {"quant_method": "awq", "bits": 4, "group_size": group, "zero_point": True, "version": "gemm",
              "modules_to_not_convert": None}
    return {"quantization_config": config, "export": export, "expected": expected,
            "made_by": "autoawq 0.2.7.post3: WQLinear_GEMM.from_linear with min-max scales"}


def bnb_4bit(kind):
    import bitsandbytes
    from bitsandbytes import functional

    def quantize(weight, whole):
        packed, state = functional.quantize_4bit(weight, blocksize=64, quant_type=kind)
        return {"weight": packed} | {f"weight.{k}": v for k, v in state.as_dict(packed=True).items()}, None

    export, expected = linears(quantize)
    config = {"quant_method": "bitsandbytes", "load_in_4bit": True, "load_in_8bit": False, "bnb_4bit_quant_type": kind,
              "bnb_4bit_use_double_quant": False, "bnb_4bit_compute_dtype": "bfloat16",
              "bnb_4bit_quant_storage": "uint8", "llm_int8_skip_modules": ["lm_head"]}
    return {"quantization_config": config, "export": export, "expected": expected,
            "made_by": f"bitsandbytes {bitsandbytes.__version__}: functional.quantize_4bit and QuantState.as_dict"}


case("bnb-nf4", "BITSANDBYTES_4BIT")(lambda: bnb_4bit("nf4"))
case("bnb-fp4", "BITSANDBYTES_4BIT")(lambda: bnb_4bit("fp4"))


@case("bnb-int8", "BITSANDBYTES_INT8")
def bnb_int8():
    import bitsandbytes

    def quantize(weight, whole):
        packed, scale, _ = bitsandbytes.functional.int8_vectorwise_quant(weight.half())
        return {"weight": packed, "SCB": scale, "weight_format": torch.tensor(0, dtype=torch.uint8)}, None

    export, expected = linears(quantize)
    config = {"quant_method": "bitsandbytes", "load_in_4bit": False, "load_in_8bit": True, "llm_int8_threshold": 6.0,
              "llm_int8_skip_modules": ["lm_head"]}
    return {"quantization_config": config, "export": export, "expected": expected,
            "made_by": f"bitsandbytes {bitsandbytes.__version__}: functional.int8_vectorwise_quant; weight_format as "
                       "Linear8bitLt saves it for the row format"}


@case("quark-int4", "QUARK_INT4")
def quark():
    stub("onnxslim")
    from quark.torch.utils import create_pack_method
    group = 32
    method = create_pack_method(qscheme="per_group", dtype="uint4")

    def quantize(weight, whole):
        scale, zero = group_range(weight, group, 4)
        codes = (weight.float() / scale.repeat_interleave(group, 1) + zero.repeat_interleave(group, 1)).round()
        return {"weight": method.pack(codes.clamp(0, 15).to(torch.int32), True),
                "weight_scale": scale.t().contiguous().to(weight.dtype),
                "weight_zero_point": method.pack(zero.to(torch.int32), True)}, None

    export, expected = linears(quantize, (32, 32, 32))
    spec = {"dtype": "uint4", "qscheme": "per_group", "group_size": group, "is_dynamic": False, "symmetric": False,
            "ch_axis": -1}
    config = {"quant_method": "quark", "exclude": ["lm_head"], "layer_quant_config": {}, "layer_type_quant_config": {},
              "global_quant_config": {"weight": spec, "input_tensors": None, "output_tensors": None, "bias": None},
              "export": {"kv_cache_group": [], "pack_method": "reorder", "weight_format": "real_quantized"}}
    return {"quantization_config": config, "export": export, "expected": expected,
            "made_by": "amd-quark 0.13: create_pack_method('per_group', 'uint4').pack of min-max codes; scales "
                       "transposed as its exporter does"}


# ---- writing -------------------------------------------------------------------------------------------------------


def write(name, layout, made):
    folder = f"{OUT}/{name}"
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(f"{folder}/export")
    config = {"architectures": ["GoldenForCausalLM"], "model_type": "golden",
              "quantization_config": made["quantization_config"]}
    write_json(f"{folder}/export/config.json", config)
    if "hf_quant_config" in made:
        write_json(f"{folder}/export/hf_quant_config.json", made["hf_quant_config"])
    for file, tensors in (("export/model", made["export"]), ("expected", made["expected"])):
        save_file({k: v.contiguous().clone() for k, v in tensors.items()}, f"{folder}/{file}.safetensors",
                  metadata={"format": "pt"})
    write_json(f"{folder}/case.json", {"layout": layout, "module": f"{LAYER}.{made.get('module', 'attn.qkv')}",
                                       "made_by": made["made_by"]})


def write_json(path, content):
    with open(path, "w", encoding="utf-8") as f:
        json.dump(content, f, indent=2, default=str)
        f.write("\n")


def main():
    os.makedirs(OUT, exist_ok=True)
    write_json(f"{OUT}/mapping.json", MAPPING)
    failed = 0
    for name in sys.argv[1:] or CASES:
        layout, function = CASES[name]
        try:
            write(name, layout, function())
            print(f"{name}: {layout}")
        except Exception as error:  # the other formats' packages work whatever this one's lacks
            failed += 1
            print(f"{name}: left out: {type(error).__name__}: {error}", file=sys.stderr)
            if os.environ.get("TRACEBACK"):
                raise
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
