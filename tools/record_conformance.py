#!/usr/bin/env python3
"""Record what transformers' own reversal gives for small tensors of real model classes.

    record_conformance.py [--output tests/cli/data/conformance_cases.json.xz] [--match REGEX]

For each case below: the class is instantiated on the meta device, its state dict is reduced to layers, experts and
blocks 0 and 1 and to small tensors, its config to as many experts, and `revert_weight_conversion` runs on it with every
transform taken as used.
Stored are the config, the inputs as [name, dtype, shape] and the outputs as [name, dtype, shape, crc32 of the bytes].
The bytes of an input depend on its name alone (`fill` in tests/cli/program.py), so they are not stored.
tests/cli/conformance_test.py holds the program to the file.

Needs tools/oracle-requirements.txt.
"""
import argparse
import json
import lzma
import os
import re
import sys
import zlib

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path[:0] = [f"{ROOT}/tools", f"{ROOT}/tests/cli"]
import generate_mappings as generator  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from expert_counts import with_experts  # noqa: E402
from program import byte_count, fill  # noqa: E402
from transformers.conversion_mapping import get_model_conversion_mapping  # noqa: E402
from transformers.core_model_loading import revert_weight_conversion  # noqa: E402

OUT, IN, EXPERTS = 24, 16, 2  # OUT divides by 2, 3 and 4: every fusion has equal parts

# Label: (class, changes to its default config, names to leave out).
CASES = {
    # experts, one for each naming of containers
    "Qwen2MoeForCausalLM": ("Qwen2MoeForCausalLM", {}, None),
    "MixtralForCausalLM": ("MixtralForCausalLM", {}, None),
    "MiniMaxM3": ("MiniMaxM3SparseForConditionalGeneration", {}, None),
    "JambaForCausalLM": ("JambaForCausalLM", {}, None),
    "Lfm2MoeForCausalLM": ("Lfm2MoeForCausalLM", {"num_dense_layers": 1}, None),
    "NemotronHForCausalLM (not gated)": ("NemotronHForCausalLM", {}, None),
    "DeepseekV3ForCausalLM": ("DeepseekV3ForCausalLM", {"first_k_dense_replace": 1, "num_hidden_layers": 2}, None),
    "PhimoeForCausalLM": ("PhimoeForCausalLM", {}, None),
    "HYV3ForCausalLM": ("HYV3ForCausalLM", {}, None),
    "DeepseekV4ForCausalLM": ("DeepseekV4ForCausalLM", {}, None),
    # renames: anchors, groups, look-arounds, dots that stand for themselves
    "DetrForObjectDetection": ("DetrForObjectDetection", {}, None),
    "DeformableDetrModel": ("DeformableDetrModel", {}, None),
    "Qwen2VLForConditionalGeneration": ("Qwen2VLForConditionalGeneration", {}, None),
    "BeitForSemanticSegmentation": ("BeitForSemanticSegmentation", {}, None),
    "DINOv3ViTModel": ("DINOv3ViTModel", {}, None),
    "SegformerModel": ("SegformerModel", {}, None),
    "CohereAsrModel": ("CohereAsrModel", {}, None),
    "MllamaForConditionalGeneration": ("MllamaForConditionalGeneration", {}, None),
    "GPTNeoXForCausalLM": ("GPTNeoXForCausalLM", {}, None),
    # scopes and prefixes
    "LlavaForConditionalGeneration": ("LlavaForConditionalGeneration", {}, None),
    "Llava with Qwen3-MoE and SigLIP": ("LlavaForConditionalGeneration", {
        "text_config": {"model_type": "qwen3_moe"}, "vision_config": {"model_type": "siglip_vision_model"}}, None),
    "VideoLlavaForConditionalGeneration": ("VideoLlavaForConditionalGeneration", {}, None),
    "Qwen3_5ForCausalLM": ("Qwen3_5ForCausalLM", {}, None),
    "T5Gemma2ForConditionalGeneration": ("T5Gemma2ForConditionalGeneration", {}, None),
    "Mask2FormerForUniversalSegmentation": ("Mask2FormerForUniversalSegmentation", {}, None),
    "MaskFormerModel": ("MaskFormerModel", {}, None),
    "PaliGemmaForConditionalGeneration": ("PaliGemmaForConditionalGeneration", {}, None),
    # one tensor in several, several in one, paired renames
    "OlmoHybridForCausalLM": ("OlmoHybridForCausalLM", {}, None),
    "RadioModel": ("RadioModel", {}, None),
    "RfDetrModel": ("RfDetrModel", {}, None),
    "JinaEmbeddingsV3Model": ("JinaEmbeddingsV3Model", {}, None),
    "Kimi-K2.5 without rotated projections": ("Kimi_K25ForConditionalGeneration", {},
                                              r"vision_tower\.layers\.\d+\.attn\.[qkv]_proj\."),
}


def kept(name):
    """Layers, experts and blocks 0 and 1 only: the others are named alike."""
    return all(int(part) < 2 for part in name.split(".") if part.isdigit())


def small(name, shape):
    """A shape of the same rank, of unequal sizes."""
    if len(shape) == 3 and "expert" in name:
        return [EXPERTS, OUT, IN]
    return [OUT, IN, 3, 5, 2][:len(shape)]


def bf16(name, shape):
    if not shape:
        return torch.frombuffer(bytearray(fill(name, 2)), dtype=torch.bfloat16)[0]
    return torch.frombuffer(bytearray(fill(name, byte_count("BF16", shape))), dtype=torch.bfloat16).reshape(shape)


def crc32(tensor):
    return zlib.crc32(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())


def record(class_name, changes, leave_out, models):
    model_class, config_class = models[class_name]
    values = generator.merge(generator.sample_config(model_class, config_class), changes)
    model = generator.build(model_class, config_class, values)
    model._weight_conversions = get_model_conversion_mapping(model, add_legacy=False)
    if not model._weight_conversions:
        raise SystemExit(f"{class_name} has no conversion mapping")
    inputs = [[name, "BF16", small(name, list(tensor.shape))] for name, tensor in model.state_dict().items()
              if kept(name) and not (leave_out and re.search(leave_out, name))]
    outputs = revert_weight_conversion(model, {name: bf16(name, shape) for name, _, shape in inputs})
    config = with_experts(generator.config_file(model.config), EXPERTS)
    return {"config": config | {"architectures": [class_name]}, "inputs": inputs,
            "outputs": [[name, "BF16", list(tensor.shape), crc32(tensor)] for name, tensor in sorted(outputs.items())]}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--output", default=f"{ROOT}/tests/cli/data/conformance_cases.json.xz")
    parser.add_argument("--match", default="")
    options = parser.parse_args()
    generator.stand_in_for_optional_libraries()
    models = generator.auto_models()
    cases = {}
    for label, (class_name, changes, leave_out) in CASES.items():
        if not re.search(options.match, label):
            continue
        cases[label] = record(class_name, changes, leave_out, models)
        print(f"{label}: {len(cases[label]['inputs'])} tensors become {len(cases[label]['outputs'])}", flush=True)
    content = {"library": "transformers", "version": transformers.__version__, "cases": cases}
    with lzma.open(options.output, "wt", preset=9 | lzma.PRESET_EXTREME) as f:
        json.dump(content, f, separators=(",", ":"))
    print(f"{options.output}: {len(cases)} cases, {os.path.getsize(options.output)} bytes")


if __name__ == "__main__":
    sys.exit(main())
