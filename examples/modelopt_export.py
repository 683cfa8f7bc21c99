#!/usr/bin/env python3
"""ModelOpt's export of a tiny MiniMax-M3 in FP8 tiles: as it is, under `quantport.patch()`, and reverted on its files.

ModelOpt's own reversal does not know this format for experts: it warns, and tensors and configs keep transformers'
names in memory, which no engine loads. Needs transformers 5.17.0 and nvidia-modelopt 0.47.
"""
import os
import tempfile

import modelopt.torch.quantization as mtq
from modelopt.torch.export import export_hf_checkpoint
from safetensors import safe_open

import quantport
import tiny_models


def quantized_model(hub: str):
    return mtq.quantize(tiny_models.load("minimax_m3_vl", hub), mtq.FP8_2D_BLOCKWISE_WEIGHT_ONLY_CFG)


def tensors(folder: str) -> dict[str, bytes]:
    with safe_open(f"{folder}/model.safetensors", "pt") as file:
        return {name: file.get_tensor(name).float().numpy().tobytes() for name in file.keys()}


def show(title: str, folder: str, hub: str) -> None:
    names = [name for name in tensors(folder) if ".experts.0." in name and name.endswith("weight")]
    print(f"\n{title}:", *sorted(names), sep="\n  ")
    report = quantport.verify(folder, hub)
    print(report if report.verified else f"not verified: {len(report.problems)} problems, such as {report.problems[0]}")


def main() -> None:
    with tempfile.TemporaryDirectory() as work:
        hub, plain, patched, reverted = (os.path.join(work, name) for name in ("hub", "plain", "patched", "reverted"))
        tiny_models.save_hub("minimax_m3_vl", hub)

        export_hf_checkpoint(quantized_model(hub), export_dir=plain)
        show("exported by ModelOpt alone", plain, hub)

        with quantport.patch():
            export_hf_checkpoint(quantized_model(hub), export_dir=patched)
        show("exported under quantport.patch()", patched, hub)

        print(quantport.revert(plain, reverted, reference=hub))
        show("the first export, reverted on its files", reverted, hub)
        print("\nthe two have the same tensors:", tensors(patched) == tensors(reverted))


if __name__ == "__main__":
    main()
