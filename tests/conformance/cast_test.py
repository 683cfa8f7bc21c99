"""MXFP4 and DeepSeek-V4's FP4 experts become NVFP4 as ModelOpt's shard_cast_utils casts them, to the last bit."""
import json
import os
import struct
import sys
import tempfile
import unittest

import torch
from modelopt.torch.export.shard_cast_utils import (
    build_w13_kmax_overrides, mxfp4_kmax, quantize_mxfp4_to_nvfp4_lossless)
from safetensors.torch import load_file

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.append(f"{ROOT}/tests/cli")
from program import run  # noqa: E402

RECIPE = "nvfp4_experts_only_input_scale1-kv_fp8_cast"
EXPERTS, HIDDEN, INNER = 3, 256, 192


def save(path, tensors):
    """With F8_E8M0, which safetensors' own writer does not take from every torch."""
    header, body = {}, b""
    for name, (dtype, tensor) in tensors.items():
        data = tensor.contiguous().view(torch.uint8).numpy().tobytes()
        header[name] = {"dtype": dtype, "shape": list(tensor.shape), "data_offsets": [len(body), len(body) + len(data)]}
        body += data
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + body)


class Scales:
    """E8M0 codes of blocks, of one kind."""

    def __init__(self, seed):
        self.random = torch.Generator().manual_seed(seed)

    def between(self, low, high, shape):
        return torch.randint(low, high, shape, generator=self.random, dtype=torch.uint8)

    def random_ones(self, _module, shape):
        return self.between(112, 127, shape)

    def published(self, _module, shape):
        """Of normally distributed weights, whose largest of 32 differ by a few powers of two."""
        weight = torch.randn(*shape, 32, generator=self.random) * 0.02
        return (torch.ceil(torch.log2(weight.abs().amax(-1) / 6)) + 127).to(torch.uint8)

    def apart(self, module, shape):
        """w1 and w3 of one expert with ranges that do not meet."""
        return self.between(100, 106, shape) + (12 if module.endswith("w3") else 0)

    def too_wide(self, _module, shape):
        return self.between(90, 127, shape)

    def with_zeros(self, _module, shape):
        scales = self.between(112, 127, shape)
        scales[::3] = 0
        return scales

    def far_down(self, _module, shape):
        """Where the scale of scales is subnormal."""
        return self.between(1, 8, shape)


KINDS = (Scales.random_ones, Scales.published, Scales.apart, Scales.too_wide, Scales.with_zeros, Scales.far_down)


class CastTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def quantized(self, tensors, config):
        hub, out = f"{self.folder}/hub", f"{self.folder}/out"
        os.mkdir(hub)
        save(f"{hub}/model.safetensors", tensors)
        with open(f"{hub}/config.json", "w", encoding="utf-8") as f:
            json.dump(config, f)
        result = run("quantize", hub, "-o", out, "--recipe", RECIPE, "--json")
        self.assertEqual(result.returncode, 0, result.stderr)
        return load_file(f"{out}/model.safetensors"), json.loads(result.stdout)

    def assert_cast(self, got, name, want, turn=False):
        codes, scales, scale_2 = (part.transpose(-2, -1) if turn and part.dim() > 1 else part for part in want[:3])
        leaf = "_" if turn else "."
        self.assertTrue(torch.equal(got[name if turn else f"{name}.weight"].view(torch.uint8), codes.view(torch.uint8)), name)
        self.assertTrue(torch.equal(got[f"{name}{leaf}weight_scale"].view(torch.uint8), scales.view(torch.uint8)), name)
        self.assertEqual(got[f"{name}{leaf}weight_scale_2"].item(), scale_2.item(), name)

    def assert_counted(self, report, want):
        """Blocks of 16 here, and of 32 there."""
        counted = [(w["name"], w["exact_blocks"], w["cast_blocks"]) for w in report["weights"]]
        self.assertEqual(sorted(counted), sorted((name, 2 * parts[4], 2 * parts[3]) for name, parts in want.items()))

    def test_experts_of_deepseek(self):
        modules = {f"layers.0.ffn.experts.{i}.{w}": (HIDDEN, INNER) if w == "w2" else (INNER, HIDDEN)
                   for i in range(EXPERTS) for w in ("w1", "w2", "w3")}
        config = {"architectures": ["DeepseekV4ForCausalLM"], "model_type": "deepseek_v4", "transformers_version": "5.17.0",
                  "hidden_size": HIDDEN, "num_hidden_layers": 1, "n_routed_experts": EXPERTS, "moe_intermediate_size": INNER,
                  "vocab_size": 32, "dtype": "bfloat16", "expert_dtype": "fp4",
                  "quantization_config": {"quant_method": "fp8", "fmt": "e4m3", "scale_fmt": "ue8m0",
                                          "weight_block_size": [128, 128], "activation_scheme": "dynamic"}}
        for kind in KINDS:
            with self.subTest(kind=kind.__name__):
                self.setUp()
                scales = Scales(7)
                codes = {m: scales.between(0, 256 - 1, (o, i // 2)) for m, (o, i) in modules.items()}
                powers = {m: kind(scales, m, (o, i // 32)) for m, (o, i) in modules.items()}
                for module, power in powers.items():
                    codes[module][power.repeat_interleave(16, -1) == 0] = 0
                tensors = {"embed.weight": ("BF16", torch.ones(32, HIDDEN, dtype=torch.bfloat16)),
                           "layers.0.ffn.gate.weight": ("BF16", torch.ones(EXPERTS, HIDDEN, dtype=torch.bfloat16)),
                           "layers.0.attn.wq_a.weight": ("BF16", torch.ones(128, HIDDEN, dtype=torch.bfloat16))}
                for module in modules:
                    tensors |= {f"{module}.weight": ("I8", codes[module]), f"{module}.scale": ("F8_E8M0", powers[module])}
                got, report = self.quantized(tensors, config)
                shared = build_w13_kmax_overrides(list(modules), lambda base: powers[base], "cpu")
                want = {m: quantize_mxfp4_to_nvfp4_lossless(codes[m], powers[m], shared.get(m, mxfp4_kmax(powers[m])), "cpu")
                        for m in modules}
                for module, parts in want.items():
                    self.assert_cast(got, module, parts)
                self.assert_counted(report, want)

    def test_experts_of_gpt_oss(self):
        """One scale of scales for all experts of a parameter, which is stored with inputs before outputs."""
        container = "model.layers.0.mlp.experts"
        shapes = {f"{container}.gate_up_proj": (2 * INNER, HIDDEN), f"{container}.down_proj": (HIDDEN, INNER)}
        config = {"architectures": ["GptOssForCausalLM"], "model_type": "gpt_oss", "transformers_version": "5.17.0",
                  "hidden_size": HIDDEN, "intermediate_size": INNER, "num_hidden_layers": 1, "num_local_experts": EXPERTS,
                  "dtype": "bfloat16", "quantization_config": {"quant_method": "mxfp4"}}
        for kind in KINDS:
            with self.subTest(kind=kind.__name__):
                self.setUp()
                scales = Scales(11)
                codes = {m: scales.between(0, 256 - 1, (EXPERTS, o, i // 32, 16)) for m, (o, i) in shapes.items()}
                powers = {m: kind(scales, m, (EXPERTS, o, i // 32)) for m, (o, i) in shapes.items()}
                for module, power in powers.items():
                    codes[module][power == 0] = 0
                tensors = {"model.layers.0.self_attn.o_proj.weight": ("BF16", torch.ones(HIDDEN, 64, dtype=torch.bfloat16)),
                           "model.layers.0.mlp.router.weight": ("BF16", torch.ones(EXPERTS, HIDDEN, dtype=torch.bfloat16))}
                for name in shapes:
                    tensors |= {f"{name}_blocks": ("U8", codes[name]), f"{name}_scales": ("U8", powers[name])}
                got, report = self.quantized(tensors, config)
                want = {m: quantize_mxfp4_to_nvfp4_lossless(codes[m].flatten(-2), powers[m], mxfp4_kmax(powers[m]), "cpu")
                        for m in shapes}
                for name, parts in want.items():
                    self.assert_cast(got, name, parts, turn=True)
                self.assert_counted(report, want)


if __name__ == "__main__":
    unittest.main()
