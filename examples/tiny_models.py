"""Small random models for the examples, saved as hub checkpoints are: nothing is downloaded."""
from __future__ import annotations

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText, PreTrainedModel

SIZES = {"vocab_size": 256, "hidden_size": 128, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
         "num_key_value_heads": 2, "max_position_embeddings": 256, "head_dim": 32, "bos_token_id": 1, "eos_token_id": 2,
         "pad_token_id": 0, "tie_word_embeddings": False}
MODELS = {
    "mixtral": {**SIZES, "num_local_experts": 8, "num_experts_per_tok": 2},
    "qwen3_moe": {**SIZES, "num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 128},
    "minimax_m3_vl": {
        "text_config": {**SIZES, "rotary_dim": 16, "num_local_experts": 8, "num_experts_per_tok": 2,
                        "dense_intermediate_size": 128, "shared_intermediate_size": 128,
                        "mlp_layer_types": ["dense", "sparse"]},
        "vision_config": {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2,
                          "image_size": 28},
        "projector_hidden_size": 128, "image_token_index": 254, "video_token_index": 255},
}


def auto_class(name: str) -> type:
    return AutoModelForImageTextToText if name == "minimax_m3_vl" else AutoModelForCausalLM


def save_hub(name: str, folder: str) -> None:
    """Writes the BF16 checkpoint that the model's authors would have published."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(name, **MODELS[name])
    config.dtype = torch.bfloat16
    auto_class(name).from_config(config, dtype=torch.bfloat16).save_pretrained(folder)


def load(name: str, folder: str) -> PreTrainedModel:
    return auto_class(name).from_pretrained(folder, dtype=torch.bfloat16).eval()


def batches(count: int = 4) -> list[dict[str, torch.Tensor]]:
    """Stands for a data set: batches of two sequences."""
    torch.manual_seed(1)
    return [{"input_ids": torch.randint(3, 250, (2, 64))} for _ in range(count)]
