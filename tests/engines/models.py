"""Tiny hub checkpoints of the architectures that engines are asked about: random weights, the hub's own config keys.

Sizes are the smallest that the engines' kernels and every format's groups allow: widths of whole 128s, of which no two
that could be taken for each other are equal.
"""
import json
import os

import torch
import transformers

SIZES = {"vocab_size": 256, "hidden_size": 256, "num_attention_heads": 4, "num_key_value_heads": 2,
         "num_hidden_layers": 3, "max_position_embeddings": 512, "tie_word_embeddings": False, "bos_token_id": 1,
         "eos_token_id": 2, "pad_token_id": 0}
MLA = {"q_lora_rank": 128, "kv_lora_rank": 512, "qk_rope_head_dim": 64, "qk_nope_head_dim": 128, "v_head_dim": 128}
YARN = {"type": "yarn", "rope_type": "yarn", "rope_theta": 10000, "factor": 40, "mscale": 1.0, "mscale_all_dim": 1.0,
        "original_max_position_embeddings": 4096, "beta_fast": 32, "beta_slow": 1}

# name -> class, settings, keys of the hub's config.json that transformers does not write.
MODELS = {
    "llama": ("LlamaForCausalLM", {**SIZES, "head_dim": 64, "intermediate_size": 512}, {}),
    "qwen3": ("Qwen3ForCausalLM", {**SIZES, "head_dim": 64, "intermediate_size": 512}, {}),
    "qwen3_moe": ("Qwen3MoeForCausalLM", {
        **SIZES, "head_dim": 64, "intermediate_size": 512, "moe_intermediate_size": 128, "num_experts": 4,
        "num_experts_per_tok": 2}, {}),
    "mixtral": ("MixtralForCausalLM", {
        **SIZES, "intermediate_size": 512, "num_local_experts": 4, "num_experts_per_tok": 2}, {}),
    "deepseek_v3": ("DeepseekV3ForCausalLM", {
        **SIZES, **MLA, "num_key_value_heads": 4, "intermediate_size": 512, "moe_intermediate_size": 128,
        "n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 2, "topk_group": 1, "n_shared_experts": 1,
        "first_k_dense_replace": 1}, {"scoring_func": "sigmoid", "topk_method": "noaux_tc", "moe_layer_freq": 1,
                                      "rope_scaling": YARN}),
    "minimax_m2": ("MiniMaxM2ForCausalLM", {
        **SIZES, "head_dim": 64, "intermediate_size": 128, "num_local_experts": 4, "num_experts_per_tok": 2,
        "rotary_dim": 32}, {"scoring_func": "sigmoid", "use_routing_bias": True, "use_qk_norm": True,
                            "qk_norm_type": "per_layer"}),
    "glm4_moe": ("Glm4MoeForCausalLM", {
        **SIZES, "head_dim": 64, "intermediate_size": 512, "moe_intermediate_size": 128, "n_routed_experts": 4,
        "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1, "n_shared_experts": 1, "first_k_dense_replace": 1,
        "partial_rotary_factor": 0.5}, {}),
    "qwen3_next": ("Qwen3NextForCausalLM", {
        **SIZES, "num_hidden_layers": 4, "head_dim": 64, "intermediate_size": 512, "moe_intermediate_size": 128,
        "shared_expert_intermediate_size": 128, "num_experts": 4, "num_experts_per_tok": 2,
        "linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 64, "linear_value_head_dim": 64,
        "partial_rotary_factor": 0.25}, {"full_attention_interval": 4}),
    "gpt_oss": ("GptOssForCausalLM", {
        **SIZES, "head_dim": 64, "intermediate_size": 128, "num_local_experts": 4, "num_experts_per_tok": 2,
        "sliding_window": 64}, {}),
    "llama4": ("Llama4ForCausalLM", {
        **SIZES, "head_dim": 64, "intermediate_size": 128, "intermediate_size_mlp": 512, "num_local_experts": 4,
        "num_experts_per_tok": 1, "interleave_moe_layer_step": 1, "attention_chunk_size": 64}, {}),
}


def save(name, folder):
    """Writes the hub checkpoint of the model into the folder."""
    architecture, settings, hub_keys = MODELS[name]
    model_class = getattr(transformers, architecture)
    torch.manual_seed(1)
    model = model_class(model_class.config_class(**settings)).to(torch.bfloat16)
    for parameter_name, parameter in model.named_parameters():
        if parameter.dim() >= 2 or "bias" in parameter_name:
            torch.nn.init.normal_(parameter, std=0.05)
        else:
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    model.save_pretrained(folder)
    path = os.path.join(folder, "config.json")
    with open(path) as file:
        config = json.load(file)
    config.update(hub_keys)
    with open(path, "w") as file:
        json.dump(config, file, indent=2)
        file.write("\n")
