#!/usr/bin/env python3
"""Reverts composite models with other parts than their class's default, and holds them against transformers' own reversal.

Which transforms apply to such a model, and below which paths, follows from its config.json alone; each case below must bring others
than the default composition does. Float and NVFP4-like quantized, with and without a reference, as classes_test.py does it.

    composites_test.py [--match REGEX] [-v]      exit status 1 where a case differs, or is like the default
"""
import argparse
import copy
import re
import sys

from oracle import Case, Tally, check_revert, generator, transformers

SIGLIP = {"model_type": "siglip_vision_model"}
QWEN3_MOE = {"model_type": "qwen3_moe"}
MIXTRAL = {"model_type": "mixtral"}

# (class, its parts that are not the default)
COMPOSITES = [
    ("LlavaForConditionalGeneration", {"text_config": QWEN3_MOE, "vision_config": SIGLIP}),
    ("LlavaModel", {"text_config": {"model_type": "deepseek_v3"}, "vision_config": SIGLIP}),
    ("LlavaNextForConditionalGeneration", {"text_config": {"model_type": "qwen2_moe"}}),
    ("LlavaOnevisionForConditionalGeneration", {"text_config": MIXTRAL}),
    ("VipLlavaForConditionalGeneration", {"text_config": {"model_type": "olmoe"}}),
    ("AyaVisionForConditionalGeneration", {"text_config": {"model_type": "glm4_moe"}, "vision_config": SIGLIP}),
    ("Mistral3ForConditionalGeneration", {"text_config": MIXTRAL}),
    ("InternVLForConditionalGeneration", {"text_config": QWEN3_MOE}),
    ("InternVLModel", {"text_config": {"model_type": "phimoe"}}),
    ("PaliGemmaForConditionalGeneration", {"text_config": MIXTRAL | {"use_bidirectional_attention": False}, "vision_config": {"model_type": "clip_vision_model"}}),
    ("Idefics3ForConditionalGeneration", {"text_config": MIXTRAL | {"pad_token_id": 0}}),
    ("SmolVLMForConditionalGeneration", {"text_config": QWEN3_MOE | {"pad_token_id": 0}}),
    ("Qwen2AudioForConditionalGeneration", {"text_config": {"model_type": "qwen2_moe"}}),
    ("VoxtralForConditionalGeneration", {"text_config": MIXTRAL}),
    ("AudioFlamingo3ForConditionalGeneration", {"text_config": QWEN3_MOE}),
    ("GraniteSpeechForConditionalGeneration", {"text_config": {"model_type": "granitemoe"}}),
    ("FuyuForCausalLM", {"text_config": MIXTRAL}),
    ("VisionEncoderDecoderModel", {"encoder": {"model_type": "beit"}}),
    ("VisionEncoderDecoderModel", {"encoder": {"model_type": "dinov3_vit"}}),
    ("VisionTextDualEncoderModel", {"vision_config": {"model_type": "clip"}, "text_config": {"model_type": "roberta"}}),
    ("Blip2ForConditionalGeneration", {"text_config": MIXTRAL}),
    ("InstructBlipForConditionalGeneration", {"text_config": QWEN3_MOE}),
    ("Mask2FormerForUniversalSegmentation", {"backbone_config": {"model_type": "resnet"}}),
    ("DPTForDepthEstimation", {"backbone_config": {
        "model_type": "beit", "out_indices": [3, 5, 7, 11], "reshape_hidden_states": False}}),
    ("UperNetForSemanticSegmentation", {"backbone_config": {
        "model_type": "beit", "out_indices": [3, 5, 7, 11], "reshape_hidden_states": True}}),
    ("DetrForObjectDetection", {"backbone_config": {"model_type": "swin", "out_indices": [1, 2, 3, 4]}}),
]


def label(name, parts):
    return f"{name} with " + ", ".join(f"{key} {part['model_type']}" for key, part in parts.items())


def make(name, changes, models):
    model_class, config_class = models[name]
    values = generator.merge(generator.sample_config(model_class, config_class), changes)
    model = generator.build(model_class, config_class, values)
    return Case(name, model, generator.config_file(model.config))


def signature(case):
    """The transforms with their scopes."""
    return [(str(transform), transform.scope_prefix) for transform in case.model._weight_conversions]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--match", default="")
    parser.add_argument("-v", action="store_true")
    options = parser.parse_args()
    transformers.logging.set_verbosity_error()
    generator.stand_in_for_optional_libraries()
    models, tally = generator.auto_models(), Tally(options.v)
    for name, parts in COMPOSITES:
        if not re.search(options.match, label(name, parts)):
            continue
        case = make(name, copy.deepcopy(parts), models)
        alike = signature(case) == signature(make(name, {}, models))
        tally.add(label(name, parts), {"differs from the default": "the mapping is the default's" if alike else None}
                  | check_revert(case))
    return tally.failed()


if __name__ == "__main__":
    sys.exit(main())
