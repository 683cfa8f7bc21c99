#!/usr/bin/env python3
"""A tiny Mixtral quantized by llm-compressor to FP8, held against its hub checkpoint, and given the hub's names.

llm-compressor takes fused experts apart and saves them with transformers' names in memory (`gate_proj`), where
Mixtral's hub checkpoint has `w1`. Needs transformers and llmcompressor (tools/llmcompressor-requirements.txt).
"""
import os
import tempfile

from llmcompressor import oneshot
from llmcompressor.modifiers.quantization import QuantizationModifier

import quantport
import tiny_models


def export(hub: str, out: str) -> None:
    model = tiny_models.load("mixtral", hub)
    recipe = QuantizationModifier(targets="Linear", scheme="FP8_DYNAMIC", ignore=["lm_head", "re:.*gate$"])
    oneshot(model=model, recipe=recipe)
    model.save_pretrained(out, save_compressed=True)


def main() -> None:
    with tempfile.TemporaryDirectory() as work:
        hub, exported, reverted = (os.path.join(work, name) for name in ("hub", "exported", "reverted"))
        tiny_models.save_hub("mixtral", hub)
        export(hub, exported)
        print(quantport.inspect(exported))

        report = quantport.verify(exported, hub)
        print(f"\nas exported: {len(report.problems)} problems, such as {report.problems[0]}\n")

        print(quantport.revert(exported, reverted, reference=hub))
        print(quantport.verify(reverted, hub))


if __name__ == "__main__":
    main()
