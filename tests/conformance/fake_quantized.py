"""ModelOpt's own quantized model of a tiny checkpoint, and logits of it: what quantport's result is held to.

Weights in BF16, as a hub has them; all else in F32, so that nothing but the quantization rounds coarsely. ModelOpt's fake
quantization of NVFP4, MXFP8 and MXFP4 runs on GPUs alone. Elsewhere its quantizers get a backend, as ModelOpt calls it, that
quantizes and dequantizes with the tensor classes that ModelOpt exports with.
"""
import contextlib
import json
import os
import sys

import torch
from safetensors.torch import load_file, save_file

import modelopt.torch.quantization as mtq
from modelopt.torch.export.quant_utils import get_quantization_format
from modelopt.torch.export.unified_export_hf import requantize_resmooth_fused_llm_layers
from modelopt.torch.quantization.nn import TensorQuantizer
from modelopt.torch.quantization.nn.modules.tensor_quantizer import register_quant_backend
from modelopt.torch.quantization.qtensor import MXFP4QTensor, MXFP8QTensor, NVFP4QTensor

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path += [f"{ROOT}/tests/cli", f"{ROOT}/tools"]

import make_quantize_goldens as goldens  # noqa: E402
import quantize_golden_models as tiny  # noqa: E402
from hub_models import write_hub  # noqa: E402

factory = tiny.factory
TOKENS = torch.arange(48, dtype=torch.int64).reshape(2, 24) * 11 % 61
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
BACKEND = "quantport-tensor-classes"


def write_live_hub(name, folder, dtype=torch.bfloat16):
    """The goldens' checkpoint with other powers of two and with norms near one: as it is, its layers add so little to the
    embeddings that logits hardly tell what an expert does."""
    write_hub(name, folder)
    state_dtype(folder, dtype)
    tensors = load_file(f"{folder}/model.safetensors")
    for key, tensor in tensors.items():
        if tensor.dim() > 1:
            wanted = 1.0 if "embed" in key else tensor.shape[-1] ** -0.5
            tensor *= torch.exp2((wanted / tensor.float().square().mean().sqrt()).log2().round()).to(tensor.dtype)
        elif key.endswith("norm.weight") and name != "minimax_m3":  # whose norms add one themselves
            tensor += 1
    save_file({key: tensor.to(dtype) for key, tensor in tensors.items()}, f"{folder}/model.safetensors", {"format": "pt"})


def state_dtype(folder, dtype):
    """Makes config.json say so, which is what dequantize goes by."""
    with open(f"{folder}/config.json", encoding="utf-8") as f:
        config = json.load(f)
    config["dtype"] = str(dtype).removeprefix("torch.")
    with open(f"{folder}/config.json", "w", encoding="utf-8") as f:
        json.dump(config, f)


def tensor_classes(inputs, quantizer):
    """Quantizes and dequantizes blocks of the last dimension."""
    block = quantizer.block_sizes[-1]
    values = inputs.reshape(-1, inputs.shape[-1]).clone()
    blocks = {-1: block}
    if quantizer.num_bits == (4, 3):
        quantized, scale = MXFP8QTensor.quantize(values)
        out = quantized.dequantize(inputs.dtype, scale=scale)
    elif quantizer.block_sizes["scale_bits"] == (8, 0):
        quantized, scale = MXFP4QTensor.quantize(values, block)
        out = quantized.dequantize(inputs.dtype, scale=scale, block_sizes=blocks)
    else:
        scale_2 = quantizer.amax.float() / (448.0 if hasattr(quantizer, "beside_fp8") else 6 * 448.0)
        quantized, scale, _ = NVFP4QTensor.quantize(values, block, None, scale_2)
        out = quantized.dequantize(inputs.dtype, scale=scale, double_scale=scale_2, block_sizes=blocks)
    return out.reshape(inputs.shape)


register_quant_backend(BACKEND, tensor_classes)


def use_tensor_classes(model):
    for module in model.modules():
        if isinstance(module, TensorQuantizer) and (module.block_sizes or {}).get("type") == "dynamic":
            module.backend = BACKEND
        of_weights = {name: q for name, q in goldens.quantizers_of(module).items() if "weight_quantizer" in name}
        # The exporter divides the largest magnitude of W4A8_NVFP4_FP8 by 448 alone.
        if of_weights and get_quantization_format(module) == "w4a8_nvfp4_fp8":
            for quantizer in of_weights.values():
                quantizer.beside_fp8 = True


def load(name, folder):
    return tiny.load(name, folder, torch.float32).to(DEVICE)


def logits(model):
    with torch.no_grad():
        return model(input_ids=TOKENS.to(DEVICE)).logits.double().cpu()


def distance(a, b):
    """The largest difference of a token's logits, relative to the largest logit; of all tokens the median.

    Where rounding tips over which expert a token goes to, its logits have nothing in common with what they were. That
    happens to one token in ten or so, and says nothing about weights."""
    return ((a - b).abs().amax(-1).median() / a.abs().max()).item()


class FakeQuantized:
    """A model under ModelOpt's quantizers, with scales shared as its export shares them."""

    def __init__(self, name, hub, recipe):
        self.model = load(name, hub)
        mtq.quantize(self.model, goldens.quantize_config(recipe), forward_loop=logits)
        self.amax = goldens.activation_amax(self.model)
        if DEVICE == "cpu":
            use_tensor_classes(self.model)
        if "int4" not in recipe:  # which shares no scales, and fails on experts here
            requantize_resmooth_fused_llm_layers(self.model)
        self.weights = {name: weight.detach().clone() for name, weight in self.model.named_parameters()}

    def quantizers(self, of_weights):
        return [module for name, module in self.model.named_modules() if isinstance(module, TensorQuantizer)
                and module.is_enabled and ("weight_quantizer" in name) == of_weights]

    @contextlib.contextmanager
    def without(self, quantizers):
        for quantizer in quantizers:
            quantizer.disable()
        try:
            yield
        finally:
            for quantizer in quantizers:
                quantizer.enable()

    def logits(self, moved_by=0, seed=0):
        """With the hub's weights, quantized by ModelOpt on the way; each first moved by up to this, relatively."""
        self.set_weights(moved(self.weights, moved_by, seed))
        return logits(self.model)

    def logits_with(self, weights, moved_by=0, seed=0):
        """With these weights as they are, quantized already; activations are quantized all the same."""
        with self.without(self.quantizers(of_weights=True)):
            self.set_weights(moved(weights, moved_by, seed))
            return logits(self.model)

    def set_weights(self, weights):
        for name, parameter in self.model.named_parameters():
            parameter.data.copy_(weights[name])


def moved(weights, by, seed):
    if by == 0:
        return weights
    generator = torch.Generator().manual_seed(seed)
    return {name: weight * (1 + by * (2 * torch.rand(weight.shape, generator=generator) - 1)).to(weight)
            for name, weight in weights.items()}
