#!/usr/bin/env python3
"""A BF16 model calibrated and quantized to NVFP4, verified, and loaded back: the whole way on a tiny Qwen3-MoE.

Only the calibration needs the model in memory. `quantize` works on files, and its result has the bytes that ModelOpt's
`mtq.quantize` and `export_hf_checkpoint` would write.
"""
import os
import tempfile

import torch

import quantport
import tiny_models

RECIPE = "nvfp4_default-kv_fp8"


def logits(folder: str) -> torch.Tensor:
    with torch.no_grad():
        return tiny_models.load("qwen3_moe", folder)(**tiny_models.batches(1)[0]).logits.float()


def main() -> None:
    with tempfile.TemporaryDirectory() as work:
        hub, amax, quantized, plain = (os.path.join(work, name) for name in ("hub", "amax.safetensors", "nvfp4", "plain"))
        tiny_models.save_hub("qwen3_moe", hub)

        print(quantport.calibrate(tiny_models.load("qwen3_moe", hub), tiny_models.batches(), amax))
        print(quantport.quantize(hub, quantized, RECIPE, calibration=amax))
        print(quantport.verify(quantized, hub))

        # Engines compute with the NVFP4 tensors; transformers does with their values in BF16.
        print(quantport.dequantize(quantized, plain))
        before, after = logits(hub), logits(plain)
        error = (after - before).norm() / before.norm()
        same = (after.argmax(-1) == before.argmax(-1)).float().mean()
        print(f"logits of the quantized model: {error:.1%} off, the same next token for {same:.0%} of the positions")
        if not error < 0.5:
            raise SystemExit("the quantized model computes something else")


if __name__ == "__main__":
    main()
