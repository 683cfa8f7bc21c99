#!/usr/bin/env python3
"""Writes tests/golden/quantize/modelopt.safetensors: small weights and what ModelOpt's own functions make of them on a CPU.

    python tools/make_kernel_goldens.py tests/golden/quantize/modelopt.safetensors
    python tools/make_kernel_goldens.py tests/golden/quantize/modelopt-cuda.safetensors cuda

Needs torch, safetensors and nvidia-modelopt (tools/oracle-requirements.txt). Tensors are `WEIGHT.FORMAT.LEAF`; `deq` is what the
tensor classes dequantize to, in the weight's type. On a GPU there are more weights, as scales are divided otherwise there, and
`search_NAME.block_amax`, what calibration chose for the blocks of static NVFP4; the search needs Triton, and nvcc for an extension.
"""
import copy
import sys
from types import SimpleNamespace

import torch
from safetensors.torch import save_file

import modelopt.torch.quantization as mtq
from modelopt.torch.export import quant_utils
from modelopt.torch.quantization.qtensor import FP8QTensor, INT8QTensor, MXFP4QTensor, MXFP8QTensor, NVFP4QTensor
from modelopt.torch.quantization.utils import reduce_block_amax


def weights():
    generator = torch.Generator().manual_seed(20)
    normal = torch.randn(4, 256, generator=generator) * 0.02
    spread = torch.randn(4, 256, generator=generator) * torch.exp2(torch.randint(-40, 12, (4, 256), generator=generator).float())
    spread[1, 32:64] = 0
    spread[2, 0:32] = torch.exp2(torch.arange(-32.0, 0.0))
    # One block large, all others so small that their scales are subnormal or below the smallest.
    steep = torch.randn(2, 256, generator=generator) * torch.exp2(torch.arange(0, -64, -0.125)).reshape(2, 256)
    ties = (torch.arange(256) % 28 - 14).float().reshape(2, 128).repeat(1, 2) * 0.25
    ties[0, 0], ties[0, 1] = 448.0, -0.0
    return {
        "normal": normal.bfloat16(), "spread": spread.bfloat16(), "steep": steep.bfloat16(), "ties": ties.bfloat16(),
        "half": (normal[:2] * 3).half(), "single": normal[2:] * 1.7, "zeros": torch.zeros(2, 256).bfloat16(),
        "partial": (torch.randn(7, 200, generator=generator) * 0.1).bfloat16(),
    }


def scaled_weights():
    """Small weights whose largest magnitudes have many mantissas, down to where the scale of an F16 is subnormal or zero."""
    generator = torch.Generator().manual_seed(21)
    scaled = {}
    for i in range(20):
        dtype = torch.bfloat16 if i < 12 else torch.float16 if i < 16 else torch.float32
        amax = (1 + torch.rand(1, generator=generator)) * 2.0 ** (i % 12 - 8)
        weight = torch.randn(2, 128, generator=generator).clamp(-3, 3) / 3.5 * amax
        weight[i % 2, 7 * i % 128] = amax
        scaled[f"scaled{i}"] = weight.to(dtype)
    faint = torch.randn(2, 128, generator=generator)
    return scaled | {f"faint{e}": (faint * 2.0 ** -e).half() for e in (10, 15, 19)}


def searched_weights():
    generator = torch.Generator().manual_seed(22)
    normal = torch.randn(16, 256, generator=generator) * 0.03
    normal[3, 16:48] = 0
    spread = torch.randn(32, 256, generator=generator) * torch.exp2(torch.randn(32, 256, generator=generator) * 2)
    return {"searched": normal.bfloat16(), "searched_half": normal[:8].half(), "searched_single": normal[8:] * 1.1,
            "searched_spread": spread.bfloat16()}


def nvfp4(out, name, weight, block):
    quantized, scale, scale_2 = NVFP4QTensor.quantize(weight.clone(), block)
    deq = quantized.dequantize(weight.dtype, scale=scale, double_scale=scale_2, block_sizes={-1: block})
    out.update({f"{name}.weight": quantized._quantized_data, f"{name}.weight_scale": scale, f"{name}.weight_scale_2": scale_2,
                f"{name}.deq": deq})


def nvfp4_static(out, name, weight, factors, four_over_six):
    """As the exporter does for per-block amax that a search chose: here amax times one of `factors`, in turn."""
    block_sizes = {-1: 16, "type": "static", "scale_bits": (4, 3)}
    if four_over_six:
        block_sizes["four_over_six"] = True
    amax = reduce_block_amax(weight, {-1: 16}).float()
    amax = (amax.reshape(-1) * torch.tensor(factors, device=weight.device).repeat(amax.numel())[: amax.numel()]).reshape(amax.shape)
    quantizer = SimpleNamespace(block_sizes=block_sizes, global_amax=weight.abs().max().float(), _amax=amax)
    scale, scale_2 = NVFP4QTensor.get_weights_scaling_factor_from_quantizer(quantizer, weight)
    data = quant_utils.to_quantized_weight(weight.clone(), scale, "nvfp4", scale_2, 16)
    out.update({f"{name}.block_amax": amax, f"{name}.weight": data, f"{name}.weight_scale": scale, f"{name}.weight_scale_2": scale_2})


def with_scales(out, name, weight, quantization, scale, block=None):
    out[f"{name}.weight_scale"] = scale
    out[f"{name}.weight"] = quant_utils.to_quantized_weight(weight.clone(), scale, quantization, None, block)


def guarded(amax, largest):
    """As TensorQuantizer.export_amax does."""
    amax = torch.where(amax == 0, torch.full_like(amax, largest), amax).clamp(min=torch.finfo(amax.dtype).tiny)
    return amax.float() / largest


def add(out, case, weight):
    out[f"{case}.weight"] = weight
    amax = weight.abs().max()
    with_scales(out, f"{case}.fp8", weight, "fp8", amax.float() / 448.0)
    rows = weight.abs().amax(dim=1)
    with_scales(out, f"{case}.fp8_pc_pt", weight, "fp8_pc_pt", guarded(rows, 448.0))
    with_scales(out, f"{case}.int8_wo", weight, "int8_wo", guarded(rows, 127.0))
    tiles = guarded(reduce_block_amax(torch.nn.functional.pad(weight, (0, -weight.shape[1] % 128, 0, -weight.shape[0] % 128)),
                                      {-1: 128, -2: 128}), 448.0)
    out[f"{case}.fp8_pb_wo.weight_scale"] = tiles
    blocks = {-1: 128, -2: 128}
    out[f"{case}.fp8_pb_wo.weight"] = FP8QTensor.quantize(weight, tiles, block_sizes=blocks)[0]._quantized_data
    q8 = FP8QTensor(weight.shape, weight.dtype, out[f"{case}.fp8_pb_wo.weight"])
    out[f"{case}.fp8_pb_wo.deq"] = q8.dequantize(weight.dtype, scale=tiles, block_sizes=blocks)
    out[f"{case}.fp8.deq"] = FP8QTensor(weight.shape, weight.dtype, out[f"{case}.fp8.weight"]).dequantize(
        weight.dtype, scale=out[f"{case}.fp8.weight_scale"])
    out[f"{case}.int8_wo.deq"] = INT8QTensor(weight.shape, weight.dtype, out[f"{case}.int8_wo.weight"]).dequantize(
        weight.dtype, scale=out[f"{case}.int8_wo.weight_scale"][:, None])
    if weight.shape[1] % 128:
        return
    if weight.shape[0] % 2 == 0:
        groups = guarded(reduce_block_amax(weight, {-1: 128}).float(), 7.0)
        with_scales(out, f"{case}.int4_awq", weight, "int4_awq", groups, 128)
    nvfp4(out, f"{case}.nvfp4", weight, 16)
    nvfp4(out, f"{case}.nvfp4_bs32", weight, 32)
    scale_2 = amax.float() / 448.0
    scale = NVFP4QTensor.get_weights_scaling_factor(weight, 32, scale_2)[0]
    out.update({f"{case}.w4a8_nvfp4_fp8.weight_scale": scale, f"{case}.w4a8_nvfp4_fp8.weight_scale_2": scale_2})
    out[f"{case}.w4a8_nvfp4_fp8.weight"] = quant_utils.to_quantized_weight(weight.clone(), scale, "w4a8_nvfp4_fp8", scale_2, 32)
    nvfp4_static(out, f"{case}.nvfp4_static", weight, [1.0, 0.75, 1.25, 0.5, 2.0], False)
    nvfp4_static(out, f"{case}.nvfp4_four_over_six", weight, [1.0, 1.5], True)
    for name, tensor_class, options in (("mxfp4", MXFP4QTensor, {"block_size": 32}), ("mxfp8", MXFP8QTensor, {})):
        quantized, scale = tensor_class.quantize(weight.clone(), **options)
        deq = quantized.dequantize(weight.dtype, scale=scale, block_sizes={-1: 32})
        out.update({f"{case}.{name}.weight": quantized._quantized_data, f"{case}.{name}.weight_scale": scale, f"{case}.{name}.deq": deq})


class Linears(torch.nn.Module):
    """One linear layer a weight, which share nothing."""

    def __init__(self, weights):
        super().__init__()
        self.layers = torch.nn.ModuleDict()
        for name, weight in weights.items():
            layer = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False, device=weight.device, dtype=weight.dtype)
            layer.weight.data.copy_(weight)
            self.layers[name] = layer

    def forward(self, inputs):
        return [layer(inputs[:, : layer.in_features].to(layer.weight.dtype)) for layer in self.layers.values()]


def calibrated(weights, config):
    model = Linears(weights)
    widest = max(weights.values(), key=lambda weight: weight.shape[1])
    inputs = torch.randn(8, widest.shape[1], generator=torch.Generator().manual_seed(23)).to(widest.device)
    return mtq.quantize(model, copy.deepcopy(config), forward_loop=lambda m: m(inputs)).layers


def searches():
    sweep = mtq.NVFP4_W4A4_WEIGHT_MSE_FP8_SWEEP_CFG
    return {"sweep": sweep, "mse": sweep | {"algorithm": {"method": "mse"}}, "four_over_six": mtq.NVFP4_FOUR_OVER_SIX_CFG}


def add_searches(out, weights):
    for search, config in searches().items():
        for name, layer in calibrated(weights, config).items():
            out[f"{name}.weight"] = weights[name]
            out[f"{name}.search_{search}.block_amax"] = layer.weight_quantizer._amax.reshape(weights[name].shape[0], -1)


def main():
    device = sys.argv[2] if len(sys.argv) > 2 else "cpu"
    out = {}
    for case, weight in weights().items():
        add(out, case, weight.to(device))
    if device != "cpu":
        for case, weight in scaled_weights().items():
            add(out, case, weight.to(device))
        out = {name: tensor for name, tensor in out.items() if not (name.startswith(("scaled", "faint")) and name.endswith("deq"))}
        add_searches(out, {case: weight.to(device) for case, weight in searched_weights().items()})
    save_file({name: tensor.contiguous().cpu() for name, tensor in out.items()}, sys.argv[1])


if __name__ == "__main__":
    main()
