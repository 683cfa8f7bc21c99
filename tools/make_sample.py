#!/usr/bin/env python3
"""Make the sample pair: a tiny MiniMax-M3 hub checkpoint, and a ModelOpt NVFP4 export of it.

    python tools/make_sample.py --output samples/minimax-m3-tiny

OUTPUT/hub     BF16, under the names of the published model, in several shards. The real transformers class with a shrunk
               config and random weights from a fixed seed, written by save_pretrained.
OUTPUT/export  the same model loaded by from_pretrained, quantized by ModelOpt's own recipe (NVFP4 on the routed experts,
               calibrated FP8 KV cache) and written by export_hf_checkpoint *under in-memory names*.

The weights and configs are written by the libraries' own code. It is interfered with in two places, both about names only:

1. hub: transformers cannot write this model's published names. Its load mapping renames `.block_sparse_moe.` to `.mlp.`
   wherever it occurs, so several published names lead to `.mlp.`, and its reversal turns every `.mlp.` into
   `.block_sparse_moe.`: also that of the dense text layers and of the vision tower, which the published checkpoint calls
   `mlp`. `published_names` puts these back between the reversal and the sharding. Without it the folder would be named
   as no published checkpoint is. Both spellings load to the same parameters.
2. export: ModelOpt 0.47 has a reversal of its own, switched off here (`keep_in_memory_names`). In-memory names in tensors
   and config are the defect that quantport mends, and an NVFP4 MiniMax-M3 has been published in this state.

Nothing else needed help on a CPU: ModelOpt registers the fused experts and the attention class by itself.

Versions: transformers 5.17.0, nvidia-modelopt 0.47.0 (which also imports `requests`), torch 2.13.0 for CPUs.
Weights follow from the seed alone, on any machine; `input_scale`, `k_scale` and `v_scale` follow from BF16 matrix
products, which may differ slightly on another CPU.
"""

import argparse
import contextlib
import json
import re
from pathlib import Path
from unittest import mock

import modelopt.torch.quantization as mtq
import torch
import transformers.modeling_utils
from modelopt.recipe import load_recipe
from modelopt.torch.export import export_hf_checkpoint, unified_export_hf
from safetensors.torch import load_file
from transformers import MiniMaxM3SparseForConditionalGeneration, MiniMaxM3VLConfig

SEED = 20260822
RECIPE = "general/ptq/nvfp4_experts_only-kv_fp8"  # kv_fp8 is calibrated, kv_fp8_cast would store no k_scale and v_scale
VOCAB, IMAGE_TOKEN, VIDEO_TOKEN, BOS, EOS = 384, 380, 381, 382, 383

# As in the published model: leading dense layers with full attention, then MoE layers with sparse attention.
# Every width is a multiple of 16, NVFP4's block. No linear of the text model is square, so a transpose shows, and
# layers of the same kind differ only in their values, so a mix-up of layers shows in the bytes alone.
TEXT = {
    "vocab_size": VOCAB,
    "hidden_size": 96,
    "num_hidden_layers": 3,
    "mlp_layer_types": ["dense", "sparse", "sparse"],
    "layer_types": ["full_attention", "minimax_m3_sparse", "minimax_m3_sparse"],
    "dense_intermediate_size": 160,
    "intermediate_size": 64,  # of a routed expert
    "shared_intermediate_size": 80,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "rotary_dim": 16,
    "rope_parameters": {"rope_type": "default", "rope_theta": 5000000.0, "partial_rotary_factor": 0.5},
    "index_n_heads": 2,  # one a key/value head
    "index_head_dim": 16,
    "index_block_size": 16,
    "index_topk_blocks": 2,
    "max_position_embeddings": 512,
    "bos_token_id": BOS,
    "eos_token_id": EOS,
}
VISION = {
    "hidden_size": 48,
    "intermediate_size": 112,
    "num_hidden_layers": 1,
    "num_attention_heads": 3,
    "image_size": 32,
    "patch_size": 4,
}

CHAT_TEMPLATE = """{%- for message in messages -%}
{{ '<' ~ message.role ~ '>' ~ message.content ~ '</s>' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<assistant>' }}{%- endif -%}
"""
TOKENIZER_CONFIG = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "bos_token": "<s>",
    "eos_token": "</s>",
    "model_max_length": 512,
}


def make_model() -> MiniMaxM3SparseForConditionalGeneration:
    """The model in BF16. Norms and biases are random too: left at their constants, a swap of two would not show.

    Values are bell-shaped sums of four integers, exact on every machine, which torch.randn is not. The spread differs by
    tensor and by expert, so that no two experts end up with the same scales.
    """
    config = MiniMaxM3VLConfig(
        text_config=TEXT,
        vision_config=VISION,
        projector_hidden_size=144,
        image_token_index=IMAGE_TOKEN,
        video_token_index=VIDEO_TOKEN,
    )
    model = MiniMaxM3SparseForConditionalGeneration(config).to(torch.bfloat16)
    generator = torch.Generator().manual_seed(SEED)
    with torch.no_grad():
        for _, tensor in sorted(model.state_dict().items()):
            parts = tensor.shape[:1] if tensor.ndim == 3 else (1,)
            spread = 0.5 + torch.rand(parts, generator=generator).view(-1, *[1] * (tensor.ndim - 1))
            bell = torch.randint(-128, 129, (4, *tensor.shape), generator=generator).sum(0)
            tensor.copy_(bell * spread / 2960)  # a standard deviation of 0.05 times the spread
    return model


@contextlib.contextmanager
def published_names():
    """While active, save_pretrained writes the names of the published checkpoint (point 1 above)."""
    revert = transformers.modeling_utils.revert_weight_conversion
    misnamed = re.compile(r"(?<=\.)block_sparse_moe(?=\.(?:gate_proj|up_proj|down_proj|fc1|fc2)\.)")

    def revert_and_correct(model, state_dict):
        names = revert(model, state_dict)
        return {misnamed.sub("mlp", name): tensor for name, tensor in names.items()}

    with mock.patch.object(transformers.modeling_utils, "revert_weight_conversion", revert_and_correct):
        yield


@contextlib.contextmanager
def keep_in_memory_names():
    """While active, export_hf_checkpoint reverts the names of neither tensors nor config (point 2 above)."""
    with (
        mock.patch.object(unified_export_hf, "revert_weight_conversion_quant_aware", lambda model, state_dict: state_dict),
        mock.patch.object(unified_export_hf, "build_reverse_name_mapper", lambda model: None),
    ):
        yield


def write_sidecars(folder: Path) -> None:
    """What a published checkpoint has beside the weights (config.json and generation_config.json come with the model)."""
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    (folder / "tokenizer_config.json").write_text(json.dumps(TOKENIZER_CONFIG, indent=2) + "\n")


def write_hub(folder: Path) -> None:
    with published_names():
        make_model().save_pretrained(folder, max_shard_size="400KB")
    write_sidecars(folder)


def write_export(hub: Path, folder: Path) -> None:
    model, loading = MiniMaxM3SparseForConditionalGeneration.from_pretrained(
        hub, dtype=torch.bfloat16, output_loading_info=True
    )
    if any(loading.values()):
        raise SystemExit(f"{hub} did not load as a whole: {loading}")

    generator = torch.Generator().manual_seed(SEED + 1)
    batches = [torch.randint(0, IMAGE_TOKEN, (2, 64), generator=generator) for _ in range(4)]

    def calibrate(model):
        with torch.no_grad():
            for batch in batches:
                model(input_ids=batch, use_cache=False)

    model = mtq.quantize(model.eval(), load_recipe(RECIPE).quantize.model_dump(), forward_loop=calibrate)
    with keep_in_memory_names():
        export_hf_checkpoint(model, export_dir=folder, max_shard_size="500KB")
    write_sidecars(folder)


def read(folder: Path) -> dict[str, torch.Tensor]:
    """The tensors of a sharded checkpoint, held against its index."""
    weight_map = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    shards = {path.name: load_file(path) for path in sorted(folder.glob("*.safetensors"))}
    if len(shards) < 2 or weight_map != {name: shard for shard, tensors in shards.items() for name in tensors}:
        raise SystemExit(f"{folder}: not sharded, or shards and index disagree")
    return {name: tensor for tensors in shards.values() for name, tensor in tensors.items()}


def check(hub: dict[str, torch.Tensor], export: dict[str, torch.Tensor]) -> None:
    """What tests may rely on: the names and types of each kind of tensor, and scales that tell experts and layers apart."""
    bf16, u8, e4m3, f32 = torch.bfloat16, torch.uint8, torch.float8_e4m3fn, torch.float32
    layer = "model.language_model.layers.1"
    expected_hub = {
        "language_model.lm_head.weight": (bf16, (VOCAB, 96)),
        "language_model.model.layers.0.mlp.gate_proj.weight": (bf16, (160, 96)),
        "language_model.model.layers.1.block_sparse_moe.experts.0.w1.weight": (bf16, (64, 96)),
        "language_model.model.layers.1.block_sparse_moe.shared_experts.up_proj.weight": (bf16, (80, 96)),
        "language_model.model.layers.1.self_attn.index_q_proj.weight": (bf16, (32, 96)),
        "vision_tower.vision_model.encoder.layers.0.mlp.fc1.weight": (bf16, (112, 48)),
    }
    expected_export = {
        "lm_head.weight": (bf16, (VOCAB, 96)),
        "model.language_model.layers.0.mlp.gate_up_proj.weight": (bf16, (320, 96)),
        f"{layer}.mlp.experts.0.down_proj.weight": (u8, (96, 32)),
        f"{layer}.mlp.experts.0.down_proj.weight_scale": (e4m3, (96, 4)),
        f"{layer}.mlp.experts.0.down_proj.weight_scale_2": (f32, ()),
        f"{layer}.mlp.experts.0.down_proj.input_scale": (f32, ()),
        f"{layer}.mlp.shared_experts.gate_up_proj.weight": (bf16, (160, 96)),
        f"{layer}.self_attn.k_proj.k_scale": (f32, ()),
        f"{layer}.self_attn.v_proj.v_scale": (f32, ()),
    }
    for tensors, expected in ((hub, expected_hub), (export, expected_export)):
        for name, header in expected.items():
            if name not in tensors or header != (tensors[name].dtype, tuple(tensors[name].shape)):
                raise SystemExit(f"{name} is not {header}")

    # One scale for gate and up of an expert, and one input_scale for all experts of a layer: this is ModelOpt's way.
    scales = {}
    for name, tensor in export.items():
        if tensor.ndim == 0:
            owner = re.sub(r"gate_proj|up_proj", "gate_up", name)
            owner = re.sub(r"experts\.\d+", "experts", owner) if owner.endswith("input_scale") else owner
            if scales.setdefault(owner, tensor.item()) != tensor.item():
                raise SystemExit(f"{name} differs from its group")
    if len(set(scales.values())) < len(scales):
        raise SystemExit("two scales are equal: choose another SEED")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--output", type=Path, default=Path("samples/minimax-m3-tiny"))
    output = parser.parse_args().output
    hub, export = output / "hub", output / "export"
    torch.set_num_threads(1)  # one order of summation, for any number of cores
    write_hub(hub)
    write_export(hub, export)
    check(read(hub), read(export))
    for folder in (hub, export):
        size = sum(path.stat().st_size for path in folder.iterdir())
        print(f"{folder}: {len(read(folder))} tensors, {size:,} bytes")


if __name__ == "__main__":
    main()
