#!/usr/bin/env python3
"""Write the registry of checkpoint conversion mappings: data/mappings/transformers-<version>.json.

At load time transformers renames and fuses the tensors of a checkpoint. Which transforms apply is decided by walking the
instantiated model: each sub-model is looked up by class name, then by model_type, and may itself have been chosen by
config.json (AutoModel, AutoBackbone, ...). quantport has no Python and no instantiated model, so this program records, for the
installed transformers, everything that the walk depends on. It stores the composition of each class, never a flattened list,
because another text or vision tower flattens to other transforms. How it is read is shown by `Registry` in check_mappings.py.

The result, one class or conversion key a line:

conversions  key (class name or model_type) -> transforms with their unprocessed patterns, or "=KEY": the same as another key's
auto         auto class -> {model_type: class that from_config picks}; those auto classes that build some sub-model. Left out
             are the entries that would build a multimodal config's text part only
classes      class -> model_type, base_model_prefix, tied_weights (target -> source, in transformers' own words) and submodels:
             the transformers models directly below it, in the order of named_modules()

A sub-model:

path         of the module, relative to its parent
config       path of its config in the parent's config.json section; "" is the parent's own section (and model_type)
class, auto  the class, or the auto class that picks it by the section's model_type
auto_fallback  auto class that is asked when `auto` does not know the model_type
model_type   what the section has when it, or the key, is missing
model_type_fixed  true: a model_type found in the section is ignored (otherwise it replaces the default)
aliases      {model_type found: {"model_type": what transformers turns it into, "config": model_type to pick the class by}}
flat         true: when the section is missing, the parent's own section stands in for it (old, flat config files)
when         {"key", "is", "default"}: the sub-model exists if the parent's section has this value at `key` (dotted);
             "is" may be "object" (a section is there), "absent" (missing or null) or a literal; "not" in place of "is" negates
submodels    given if they differ from those of the class standing alone (an auto sub-model: for its default model_type only)

Classes are instantiated with their default configs on the meta device. The default of some is not a working model: SAMPLES
completes it. Where a config value decides which sub-models exist, VARIANTS names the value to compare with.
"""

import argparse
import copy
import inspect
import json
import os
import re
import sys
import types

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers
from transformers import PreTrainedConfig, PreTrainedModel, conversion_mapping
from transformers.core_model_loading import PrefixChange
from transformers.initialization import no_init_weights
from transformers.models.auto import modeling_auto
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.utils import import_utils

ROPE = {"rope_type": "default", "rope_theta": 1e4}
COMPASS = {"rope_parameters": {"full_attention": ROPE, "sliding_attention": ROPE}}
INDEXER = {"indexer_n_heads": 4, "indexer_kv_heads": 1, "indexer_head_dim": 256, "indexer_budget": 64, "indexer_compress_ratio": 16}
DECODER = {"model_type": "bert", "is_decoder": True, "add_cross_attention": True}
REPVIT = {"backbone_config": {"model_type": "timm_wrapper", "architecture": "repvit_m1"}}
RESNET = {"backbone_config": {"model_type": "resnet"}}
INTRACLASS = {"intraclass_block_config": {f"{direction}_{ratio}ratio": [1, 1, 0] for ratio in ("long", "mid", "short") for direction in (
    "vertical_long_to_small_conv", "horizontal_small_to_long_conv", "symmetric_conv_long")}
    | {"reduce_channel": [1, 1, 0], "return_channel": [1, 1, 0]}}

# Class or config class -> what its default config lacks. Sections that a default config leaves empty are filled as well.
SAMPLES = {
    "AutoformerConfig": {"prediction_length": 24},
    "AyaVisionConfig": {"vision_config": {"num_attention_heads": 16}},
    "BeitForSemanticSegmentation": {"out_indices": [3, 5, 7, 11], "out_features": ["stage3", "stage5", "stage7", "stage11"]},
    "ChameleonConfig": {"vocabulary_map": {"<image>": 1}},
    "CohereCompassConfig": {"text_config": COMPASS},
    "CohereCompassTextConfig": COMPASS,
    "ConditionalDetrConfig": RESNET,
    "DabDetrConfig": RESNET,
    "DbrxConfig": {"attn_config": {"rope_theta": 1e4}},
    "DeepseekOcr2Config": {"text_config": {"mlp_layer_types": ["sparse"] * 64}},
    "DeformableDetrConfig": RESNET,
    "DepthProConfig": {"use_fov_model": True},
    "DetrConfig": RESNET,
    "DiffusionGemmaConfig": {"vision_config": {"model_type": "gemma4_vision"},
                             "text_config": {"num_experts": 8, "top_k_experts": 2, "moe_intermediate_size": 64}},
    "Dots1Config": {"n_routed_experts": 8, "n_shared_experts": 1},
    "EdgeTamVisionConfig": REPVIT,
    "Emu3Config": {"vocabulary_map": {"<image>": 1, "<|extra_200|>": 2}},
    "EncoderDecoderConfig": {"encoder": {"model_type": "bert"}, "decoder": DECODER},
    "EsmConfig": {"vocab_size": 33, "pad_token_id": 1},
    "Gemma4AssistantConfig": {"text_config": {"model_type": "gemma4_text", "hidden_size_per_layer_input": 0,
                                              "vocab_size_per_layer_input": 0}},
    "Gemma4Config": {"vision_config": {"model_type": "gemma4_vision"}, "audio_config": {"model_type": "gemma4_audio"}},
    "Gemma4UnifiedAssistantConfig": {"text_config": {"model_type": "gemma4_unified_text"}},
    "Granite4VisionConfig": {"text_config": {"model_type": "granite"}, "deepstack_layer_map": [[0, 0]], "downsample_rate": "4/8"},
    "HieraForPreTraining": {"decoder_hidden_size": 512, "decoder_num_heads": 8, "decoder_depth": 1},
    "HunYuanDenseV1Config": {"head_dim": 128},
    "HunYuanMoEV1Config": {"head_dim": 128},
    "HunYuanVLConfig": {"text_config": {"head_dim": 128}},
    "HunYuanVLTextConfig": {"head_dim": 128},
    "Idefics3Config": {"pad_token_id": 0, "text_config": {"pad_token_id": 0}},
    "InformerConfig": {"prediction_length": 24},
    "Lfm2MoeConfig": {"layer_types": ["full_attention"] * 32},
    "MinistralConfig": {"head_dim": 128},
    "MoonshineStreamingConfig": {"num_key_value_heads": 8},
    "MusicgenConfig": {"text_encoder": {"model_type": "t5"}, "audio_encoder": {"model_type": "encodec"},
                       "decoder": {"model_type": "musicgen_decoder"}},
    "MusicgenMelodyConfig": {"text_encoder": {"model_type": "t5"}, "audio_encoder": {"model_type": "encodec"},
                             "decoder": {"model_type": "musicgen_melody_decoder"}},
    "NemotronConfig": {"num_key_value_heads": 8},
    "PerceiverForImageClassificationConvProcessing": {"num_cross_attention_heads": 1},
    "PerceiverForImageClassificationFourier": {"num_cross_attention_heads": 1},
    "PerceptionLMConfig": {"vision_config": {"model_type": "timm_wrapper", "architecture": "vit_pe_core_large_patch14_336",
                                             "model_args": {"embed_dim": 1024}}},
    "PPOCRV5ServerDetConfig": INTRACLASS,
    "PPOCRV6MediumDetConfig": INTRACLASS,
    "Qwen3OmniMoeConfig": {"talker_config": {"spatial_merge_size": 2, "text_config": {"shared_expert_intermediate_size": 64}}},
    "Qwen4ExpConfig": {"text_config": INDEXER},
    "Qwen4ExpTextConfig": INDEXER,
    "ReformerModelWithLMHead": {"is_decoder": True},
    "Sapiens2Config": {"head_config": {"model_type": "sapiens2_head", "upsample_out_channels": [64], "conv_out_channels": [64]}},
    "SmolVLMConfig": {"pad_token_id": 0, "text_config": {"pad_token_id": 0}},
    "SpeechEncoderDecoderConfig": {"encoder": {"model_type": "wav2vec2"}, "decoder": DECODER},
    "T5Gemma2EncoderConfig": {"text_config": {"dropout_rate": 0.0}},
    "T5GemmaEncoderModel": {"is_encoder_decoder": False},
    "TableTransformerConfig": RESNET,
    "TimeSeriesTransformerConfig": {"prediction_length": 24},
    "TimmBackboneConfig": {"backbone": "resnet50"},
    "VisionEncoderDecoderConfig": {"encoder": {"model_type": "vit"}, "decoder": {"model_type": "gpt2", "add_cross_attention": True}},
    "VisionTextDualEncoderConfig": {"vision_config": {"model_type": "vit"}, "text_config": {"model_type": "bert"}},
    "Wav2Vec2BertForCTC": {"vocab_size": 32},
    "Wav2Vec2ConformerForCTC": {"vocab_size": 32},
}

# Config class -> config values (dotted keys) that add, drop or exchange sub-models, compared with the sample config.
TIMM_BACKBONE = {"backbone_config": {"model_type": "timm_backbone", "backbone": "resnet50", "out_indices": [1, 2, 3, 4]}}
SEQ2SEQ_TEXT = {"text_config": {"model_type": "t5"}}
VARIANTS = {
    "Blip2Config": SEQ2SEQ_TEXT,
    "BltConfig": {"patch_in_forward": False},
    "ConditionalDetrConfig": TIMM_BACKBONE,
    "DabDetrConfig": TIMM_BACKBONE,
    "DeformableDetrConfig": TIMM_BACKBONE,
    "DepthProConfig": {"use_fov_model": False},
    "DetrConfig": TIMM_BACKBONE,
    "DPTConfig": {"backbone_config": {"model_type": "dinov2", "out_indices": [3, 6, 9, 12], "reshape_hidden_states": False}},
    "FlavaConfig": {"init_codebook": False},
    "Gemma4Config": {"vision_config": None, "audio_config": None},
    "InstructBlipConfig": SEQ2SEQ_TEXT,
    "InstructBlipVideoConfig": SEQ2SEQ_TEXT,
    "Qwen2_5OmniConfig": {"enable_audio_output": False},
    "Qwen3OmniMoeConfig": {"enable_audio_output": False},
    "T5GemmaConfig": {"is_encoder_decoder": False},
    "TableTransformerConfig": TIMM_BACKBONE,
}


def describe_operation(operation):
    arguments = [name for name in inspect.signature(type(operation).__init__).parameters if name != "self"]
    return {"op": type(operation).__name__, **{name: getattr(operation, name) for name in arguments}}


def describe_transform(transform):
    """A transform as the registry stores it: its kind and its constructor's arguments."""
    described = {"type": type(transform).__name__}
    if isinstance(transform, PrefixChange):
        return described | {name: getattr(transform, name) for name in ("prefix_to_add", "prefix_to_remove", "model_prefix")}
    described["source_patterns"] = transform._original_source_patterns
    described["target_patterns"] = transform._original_target_patterns
    if hasattr(transform, "operations"):
        described["operations"] = [describe_operation(operation) for operation in transform.operations]
    return described


def conversions():
    """Every key of transformers' own table; a list that an earlier key has already is given as a reference to it."""
    table = conversion_mapping._build_checkpoint_conversion_mapping()
    described, first = {}, {}
    for key in sorted(table):
        transforms = [describe_transform(transform) for transform in table[key]]
        owner = first.setdefault(json.dumps(transforms), key)
        described[key] = transforms if owner == key else f"={owner}"
    return described


def auto_classes():
    return {name: auto for name, auto in sorted(vars(modeling_auto).items())
            if isinstance(auto, type) and getattr(auto, "_model_mapping", None) is not None}


def picks(auto):
    """(model_type, config class, the models that the auto class knows for it) of each importable entry."""
    for model_type in sorted(auto._model_mapping._model_mapping):
        try:
            config_class = CONFIG_MAPPING[model_type]
            models = auto._model_mapping[config_class]
        except (KeyError, ValueError, ImportError):
            continue
        yield model_type, config_class, models if isinstance(models, (list, tuple)) else (models,)


def auto_models():
    """Class name -> (class, config class) for every model of the auto mappings."""
    found = {}
    for auto in auto_classes().values():
        for _, config_class, models in picks(auto):
            for model in models:
                try:
                    found.setdefault(model.__name__, (model, model.config_class or config_class))
                except ImportError:  # a stand-in for a class whose optional library is missing
                    found.setdefault(model.__name__, (model, config_class))
    return dict(sorted(found.items()))


def auto_table(auto):
    table = {}
    for model_type, config_class, models in picks(auto):
        text_config = config_class.sub_configs.get("text_config")
        try:
            if text_config is None or models[0].config_class is not text_config:
                table[model_type] = models[0].__name__
        except ImportError:
            continue
    return table


def stand_in_for_optional_libraries():
    """timm, PIL and natten are not needed to know a composition: give timm models without content in their place."""

    class FeatureInfo:
        def __init__(self, count):
            self.info = [{"module": f"layer{i}", "num_chs": 64 << i, "index": i} for i in range(5)]
            self.out_indices = tuple(range(5))[-count:]

        def module_name(self):
            return [f"layer{i}" for i in self.out_indices]

        def get_dicts(self):
            return [self.info[i] for i in self.out_indices]

        def channels(self):
            return [self.info[i]["num_chs"] for i in self.out_indices]

    class TimmModel(torch.nn.Module):
        def __init__(self, *_, out_indices=(1, 2, 3, 4), **__):
            super().__init__()
            self.feature_info = FeatureInfo(len(out_indices))
            self.num_features = 2048
            self.head = torch.nn.Linear(1, 1)

    for library in ("timm", "vision", "natten"):
        import_utils.BACKENDS_MAPPING[library] = (lambda: True, "")
    if import_utils.is_timm_available():
        return
    from transformers.models.gemma3n import configuration_gemma3n
    from transformers.models.timm_backbone import modeling_timm_backbone
    from transformers.models.timm_wrapper import configuration_timm_wrapper, modeling_timm_wrapper

    for module in (modeling_timm_backbone, modeling_timm_wrapper):
        module.timm = types.SimpleNamespace(create_model=TimmModel, __version__="0")
    for module in (configuration_timm_wrapper, configuration_gemma3n):
        module.infer_imagenet_subset = lambda config: None


def tag_auto_models():
    """Let every auto class leave its name on the models that it builds."""
    for auto in auto_classes().values():
        def from_config(cls, config, _from_config=auto.from_config.__func__, **kwargs):
            model = _from_config(cls, config, **kwargs)
            model.__dict__["built_by"] = cls.__name__
            return model

        auto.from_config = classmethod(from_config)


def config_file(config):
    """The config.json that transformers would save, parsed."""
    try:
        text = config.to_json_string()
    except OSError:  # writing only what differs from the default needs a default, which one class downloads
        text = config.to_json_string(use_diff=False)
    return PreTrainedConfig._decode_special_floats(json.loads(text))


def merge(values, changes):
    for key, value in changes.items():
        old = values.get(key)
        same_section = isinstance(value, dict) and isinstance(old, dict) and value.get("model_type") in (None, old.get("model_type"))
        values[key] = merge(old, value) if same_section else copy.deepcopy(value)
    return values


def sample_config(model_class, config_class):
    """A config.json for which the class can be instantiated: its default, completed from SAMPLES."""
    try:
        values = config_file(config_class())
    except (ValueError, OSError, TypeError):
        values = {"model_type": config_class.model_type}
    return merge(values, SAMPLES.get(model_class.__name__) or SAMPLES.get(config_class.__name__, {}))


def build(model_class, config_class, values):
    with torch.device("meta"), no_init_weights():
        return model_class(config_class(**copy.deepcopy(values)))


def config_path(parent, wanted, prefix=""):
    """The dotted path at which a config object is an attribute of another, or None."""
    if wanted is parent:
        return prefix
    for key, value in vars(parent).items():
        if isinstance(value, PreTrainedConfig):
            path = config_path(value, wanted, f"{prefix}.{key}" if prefix else key)
            if path is not None:
                return path
    return None


class Node:
    """A transformers model inside another, and those directly below it."""

    def __init__(self, module, parent=None, path="", full_path=""):
        self.name = type(module).__name__
        self.config = module.config
        self.model_type = module.config.model_type
        self.base_model_prefix = module.base_model_prefix
        self.tied_weights = module._tied_weights_keys
        self.path, self.full_path, self.submodels = path, full_path, []
        self.auto, self.when, self.auto_fallback, self.where = module.__dict__.get("built_by"), None, None, ""
        if parent is not None:
            self.where = config_path(parent.config, self.config)
            if self.where is None:  # a copy of the parent's config
                if self.model_type != parent.model_type:
                    raise LookupError(f"{parent.name}.{path}: the config is not part of the parent's")
                self.where = ""
            if self.where == "":  # the parent's class has settled what is picked
                self.auto = None

    def key(self):
        return self.path, self.where, self.name, self.auto, self.model_type if self.where else None


def composition(model):
    """The tree of transformers models, in named_modules() order (which names a shared module once)."""
    root = Node(model)
    nodes = [root]
    for path, module in model.named_modules():
        if path and isinstance(module, PreTrainedModel):
            parent = max((n for n in nodes if n is root or path.startswith(n.full_path + ".")), key=lambda n: len(n.full_path))
            node = Node(module, parent, path.removeprefix(parent.full_path).removeprefix("."), path)
            parent.submodels.append(node)
            nodes.append(node)
    return root


def value_at(values, key):
    for part in key.split("."):
        values = values.get(part) if isinstance(values, dict) else None
    return values


def add_variant(node, variant, key, value, other, default):
    """Merge what another config value makes of a model: sub-models that exist with one of the values only get a condition."""
    if isinstance(value, dict) and isinstance(other, dict):  # two model types, the sample's and the exceptional one
        key, positive, negative = f"{key}.model_type", {"not": other["model_type"]}, {"is": other["model_type"]}
        default = default.get("model_type") if isinstance(default, dict) else None
    else:
        positive, negative = ({"is": "object" if isinstance(v, dict) else "absent" if v is None else v} for v in (value, other))
    positive, negative = ({"key": key, **c, "default": default} if c.get("is") not in ("object", "absent") else {"key": key, **c}
                          for c in (positive, negative))
    mine = {n.path: n for n in node.submodels}
    theirs = {n.path: n for n in variant.submodels}
    for path, submodel in mine.items():
        if path not in theirs or theirs[path].where == "" and theirs[path].name != submodel.name:
            submodel.when = positive
        elif theirs[path].auto != submodel.auto:
            submodel.auto_fallback = theirs[path].auto
    position = 0
    for path, submodel in theirs.items():
        if path not in mine or mine[path].when == positive:
            submodel.when = negative
            node.submodels.insert(position, submodel)
        else:
            position = node.submodels.index(mine[path])
        position += 1


def holds(when, values):
    """Whether the section has what a sub-model's condition asks for."""
    if when is None:
        return True
    value = value_at(values, when["key"])
    if when.get("is") in ("object", "absent"):
        return isinstance(value, dict) == (when["is"] == "object")
    value = when["default"] if value is None else value
    return value == when["is"] if "is" in when else value != when["not"]


class Recorder:
    """Collects the classes' records and the way from a sub-model's section in config.json to its model_type."""

    def __init__(self):
        self.classes, self.failures, self.used, self.sections = {}, {}, set(), {}

    def record_all(self):
        below = {}
        for name, (model_class, config_class) in auto_models().items():
            try:
                root = self.record(model_class, config_class)
            except Exception as error:
                self.failures[name] = f"{type(error).__name__}: {(str(error).strip() or '?').splitlines()[0][:150]}"
                continue
            self.classes[name] = root
            pending = list(root.submodels)
            for node in pending:
                pending += node.submodels
                below.setdefault(node.name, node)
                self.used |= {node.auto, node.auto_fallback} - {None}
        for name, node in below.items():
            self.classes.setdefault(name, node)

    def record(self, model_class, config_class):
        values = sample_config(model_class, config_class)
        root = composition(build(model_class, config_class, values))
        for key, other in VARIANTS.get(config_class.__name__, {}).items():
            if model_class.__name__ in SAMPLES:
                continue  # its config is a special case already
            variant = composition(build(model_class, config_class, {**values, key: other}))
            try:
                default = value_at(config_file(config_class()), key)
            except (ValueError, OSError):
                default = None
            add_variant(root, variant, key, values.get(key), other, default)
        return root

    def as_recorded(self, node):
        """Whether the sub-models of a nested model are those that its class is recorded with."""
        values = node.config.to_dict()
        expected = [s.key() for s in self.classes[node.name].submodels if holds(s.when, values)]
        actual = [s.key() for s in node.submodels if holds(s.when, values)]
        return actual == expected and all(self.as_recorded(s) for s in node.submodels)

    def describe(self, node):
        described = {"model_type": node.model_type, "base_model_prefix": node.base_model_prefix}
        if node.tied_weights:
            described["tied_weights"] = node.tied_weights
        if node.submodels:
            described["submodels"] = self.describe_submodels(node)
        return described

    def describe_submodels(self, parent):
        children = []
        for node in parent.submodels:
            child = {"path": node.path, "config": node.where, "class": node.name, "model_type": node.model_type}
            if node.where:
                rules = self.section_rules(parent.config, node)
                if node.auto and rules.pop("dynamic"):
                    child["auto"] = node.auto
                    del child["class"]
                child |= {name: value for name, value in rules.items() if name != "dynamic" and value}
            for name in ("auto_fallback", "when"):
                if getattr(node, name):
                    child[name] = getattr(node, name)
            if not self.as_recorded(node):
                child["submodels"] = self.describe_submodels(node)
            children.append(child)
        return children

    def section_rules(self, parent_config, node):
        """Find out, by trying, what the parent's config class makes of the model_type in a section."""
        config_class = type(parent_config)
        known = (config_class, node.where)
        if known not in self.sections:
            self.sections[known] = self.try_sections(config_class, config_file(parent_config), node)
        return dict(self.sections[known])

    @staticmethod
    def try_sections(config_class, values, node):
        def section(value):
            changed = copy.deepcopy(values)
            *parents, last = node.where.split(".")
            target = changed
            for key in parents:
                target = target[key]
            target[last] = value
            try:
                config = config_class(**changed)
                for key in node.where.split("."):
                    config = getattr(config, key)
                return config if isinstance(config, PreTrainedConfig) else None
            except Exception:
                return None

        source = inspect.getsource(sys.modules[config_class.__module__])
        written = {word for line in source.splitlines() if "model_type" in line for word in re.findall(r'"([\w.-]+)"', line)}
        foreign = [t for t in ("llama", "bert", "clip_vision_model", "swin", "resnet") if t != node.model_type]
        results = {t: section({"model_type": t}) for t in sorted(written | {config_class.model_type, *foreign}) if t}
        results = {t: config for t, config in results.items() if config is not None}
        dynamic = any(t in results and type(results[t]) is CONFIG_MAPPING[t] for t in foreign)
        ignored = [t for t in foreign if t in results and results[t].model_type == node.model_type]
        rules = {"dynamic": dynamic, "model_type_fixed": bool(ignored), "aliases": {}, "flat": False}
        for model_type, config in results.items():
            if rules["model_type_fixed"]:
                break
            picked = config.__class__.model_type
            if config.model_type != model_type or dynamic and picked != model_type and node.auto:
                rules["aliases"][model_type] = {"model_type": config.model_type} | ({"config": picked} if dynamic else {})
        missing = section(None)
        if missing is not None and missing.model_type != node.model_type:
            if missing.model_type != values["model_type"]:
                raise LookupError(f"{config_class.__name__}.{node.where}: a missing section becomes {missing.model_type}")
            rules["flat"] = True
        return rules


def write(path, registry):
    def compact(value):
        return json.dumps(value, ensure_ascii=False)

    parts = []
    for name, value in registry.items():
        if isinstance(value, dict):
            lines = ",\n".join(f"  {compact(key)}: {compact(value[key])}" for key in sorted(value))
            parts.append(f" {compact(name)}: {{\n{lines}\n }}")
        else:
            parts.append(f" {compact(name)}: {compact(value)}")
    with open(path, "w", encoding="utf-8") as file:
        file.write("{\n" + ",\n".join(parts) + "\n}\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", default=f"data/mappings/transformers-{transformers.__version__}.json")
    arguments = parser.parse_args()
    transformers.logging.set_verbosity_error()
    stand_in_for_optional_libraries()
    tag_auto_models()
    recorder = Recorder()
    recorder.record_all()
    write(arguments.output, {
        "format": 1, "library": "transformers", "version": transformers.__version__,
        "conversions": conversions(),
        "auto": {name: auto_table(auto) for name, auto in auto_classes().items() if name in recorder.used},
        "classes": {name: recorder.describe(node) for name, node in recorder.classes.items()},
    })
    for name, reason in recorder.failures.items():
        print(f"not built: {name}: {reason}")
    print(f"{arguments.output}: {len(recorder.classes)} classes, {len(recorder.failures)} of the auto mappings not built, "
          f"{os.path.getsize(arguments.output)} bytes")


if __name__ == "__main__":
    main()
