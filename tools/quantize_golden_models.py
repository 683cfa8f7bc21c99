"""The tiny models that tools/make_quantize_goldens.py quantizes, and the rule that fills their weights.

Weights are a function of tensor name and element number, so that a test rebuilds a checkpoint without storing it:
tests/golden/quantize/README.md says the rule in words.
"""
import zlib

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

# 128 inputs everywhere, since INT4 blocks and FP8 tiles span as many.
SIZES = {"vocab_size": 64, "hidden_size": 128, "intermediate_size": 128, "num_hidden_layers": 2,
         "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128,
         "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "tie_word_embeddings": False}
EXPERTS = 4
MODELS = {
    "llama": ("llama", {**SIZES, "head_dim": 32}),
    "qwen3_moe": ("qwen3_moe", {**SIZES, "head_dim": 32, "num_experts": EXPERTS, "num_experts_per_tok": 2,
                                "moe_intermediate_size": 128, "mlp_only_layers": [0]}),
    "mixtral": ("mixtral", {**SIZES, "num_local_experts": EXPERTS, "num_experts_per_tok": 2}),
    "deepseek_v3": ("deepseek_v3", {**SIZES, "num_key_value_heads": 4, "moe_intermediate_size": 128,
                                    "n_routed_experts": EXPERTS, "n_shared_experts": 1, "num_experts_per_tok": 2,
                                    "n_group": 2, "topk_group": 2, "first_k_dense_replace": 1, "q_lora_rank": 128,
                                    "kv_lora_rank": 128, "qk_rope_head_dim": 16, "qk_nope_head_dim": 16,
                                    "v_head_dim": 32}),
    "minimax_m3": ("minimax_m3_vl", {
        "text_config": {**SIZES, "head_dim": 32, "rotary_dim": 16, "num_local_experts": EXPERTS,
                        "num_experts_per_tok": 2, "dense_intermediate_size": 128, "shared_intermediate_size": 128,
                        "mlp_layer_types": ["dense", "sparse"]},
        "vision_config": {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2,
                          "image_size": 28},
        "projector_hidden_size": 128, "image_token_index": 62, "video_token_index": 63}),
    # Experts in one tensor, inputs before outputs; sizes unequal, so that they can't be taken for each other.
    "llama4": ("llama4_text", {**SIZES, "head_dim": 32, "intermediate_size": 256, "intermediate_size_mlp": 128,
                               "num_local_experts": EXPERTS, "num_experts_per_tok": 1, "moe_layers": [1],
                               "no_rope_layers": [1, 0], "attention_chunk_size": 64}),
    "gpt_oss": ("gpt_oss", {**SIZES, "head_dim": 32, "intermediate_size": 256, "num_local_experts": EXPERTS,
                            "num_experts_per_tok": 2, "sliding_window": 64, "rope_scaling": None,
                            "layer_types": ["sliding_attention", "full_attention"]}),
}
# Models whose head is the embedding. Gemma's embedding is of a class of its own.
VISION = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
TIED_MODELS = {
    "llama": ("llama", {**SIZES, "head_dim": 32, "tie_word_embeddings": True}),
    "qwen3": ("qwen3", {**SIZES, "head_dim": 32, "tie_word_embeddings": True}),
    "gemma3": ("gemma3", {
        "text_config": {**SIZES, "head_dim": 32, "sliding_window": 32, "tie_word_embeddings": True}, "tie_word_embeddings": True,
        "vision_config": {**VISION, "image_size": 28}, "image_token_index": 62, "boi_token_index": 60, "eoi_token_index": 61,
        "mm_tokens_per_image": 4}),
    "gemma4": ("gemma4", {
        "text_config": {**SIZES, "head_dim": 32, "global_head_dim": 32, "num_global_key_value_heads": 2, "sliding_window": 32,
                        "layer_types": ["sliding_attention", "full_attention"], "hidden_size_per_layer_input": 0,
                        "num_kv_shared_layers": 0, "tie_word_embeddings": True}, "tie_word_embeddings": True,
        "vision_config": {**VISION, "num_key_value_heads": 2, "head_dim": 32, "global_head_dim": 32},
        "image_token_id": 62, "boi_token_id": 60, "eoi_token_id": 61}),
}
# Without recorded goldens: ModelOpt alone does not give its experts names that engines load (docs/conformance.md).
LIVE_MODELS = {
    "qwen3_vl_moe": ("qwen3_vl_moe", {
        "text_config": {**SIZES, "head_dim": 32, "num_experts": EXPERTS, "num_experts_per_tok": 2,
                        "moe_intermediate_size": 128, "mlp_only_layers": [0],
                        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [6, 5, 5]}},
        "vision_config": {"hidden_size": 64, "intermediate_size": 64, "depth": 1, "num_heads": 2, "out_hidden_size": 128,
                          "deepstack_visual_indexes": [0], "num_position_embeddings": 16},
        "image_token_id": 62, "video_token_id": 63, "vision_start_token_id": 60, "vision_end_token_id": 61,
        "tie_word_embeddings": False}),
}


def mix(x):
    """A 32-bit finalizer: neighbours get unrelated values. `x`: an int64 tensor of 32-bit numbers."""
    x = x ^ (x >> 16)
    x = (x * 0x7FEB352D) & 0xFFFFFFFF
    x = x ^ (x >> 15)
    x = (x * 0x846CA68B) & 0xFFFFFFFF
    return x ^ (x >> 16)


def fill(name, shape):
    """BF16 values for a tensor: sizes differ by tensor and by row, so that scales do, and none is an exact power."""
    seed = zlib.crc32(name.encode())
    count = 1
    for size in shape:
        count *= size
    columns = shape[-1] if shape else 1
    element = torch.arange(count, dtype=torch.int64)
    x = mix((seed + element * 2654435761) & 0xFFFFFFFF)
    row = mix((seed + (element // columns) * 40503) & 0xFFFFFFFF)
    exponent = 118 + (seed & 3) + ((x >> 8) & 3) - (row & 3)
    mantissa = ((x & 127) * (64 + ((seed >> 8) & 63))) >> 7
    bits = ((x >> 31) << 15) | (exponent << 7) | mantissa
    return bits.to(torch.int32).to(torch.uint16).view(torch.bfloat16).reshape(shape)


def factory(name):
    """The auto class that a model is made and loaded with."""
    return AutoModelForImageTextToText if name in ("minimax_m3", "qwen3_vl_moe", "gemma3", "gemma4") else AutoModelForCausalLM


def build(name, tied=False):
    """The model with random weights, in BF16 as hub checkpoints are."""
    model_type, settings = TIED_MODELS[name] if tied else {**MODELS, **LIVE_MODELS}[name]
    config = AutoConfig.for_model(model_type, **settings)
    config.dtype = torch.bfloat16
    return factory(name).from_config(config, dtype=torch.bfloat16)


def load(name, folder, dtype=torch.bfloat16, **how):
    return factory(name).from_pretrained(folder, dtype=dtype, **how).eval()
