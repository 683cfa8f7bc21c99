#!/usr/bin/env python3
"""Hold data/mappings/transformers-<version>.json, and optionally the program, against transformers itself.

    python tools/check_mappings.py [--program build/quantport] [--match REGEX]

For every class of the auto mappings, and for SWAPPED: models whose config.json names other text or vision models than
the default, in old or unusual spellings. Each is instantiated on the meta device. transformers' own list of conversions
(get_model_conversion_mapping) and its sub-models must equal what `Registry` below reads from the JSON file, given nothing
but the config.json; with --program also what `PROGRAM rules DIR --transformers VERSION --json` says of a folder with that config.json.

`Registry` shares no code with generate_mappings.py, which wrote the file. It is the file format's reference reader.
Needs the transformers version that the file was made from. Exits with 1 on any difference.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import generate_mappings as generator
import transformers
from transformers import PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping


class Registry:
    """Reads a mapping file: which sub-models and transforms a config.json leads to."""

    def __init__(self, path):
        data = json.loads(Path(path).read_text(encoding="utf-8"))
        self.version = data["version"]
        self.conversions, self.auto, self.classes = data["conversions"], data["auto"], data["classes"]

    def transforms_of(self, key):
        """The transforms of a class name or model_type, None if it has none."""
        transforms = self.conversions.get(key)
        return self.conversions[transforms[1:]] if isinstance(transforms, str) else transforms

    def submodels(self, architecture, config):
        """(path, class, model_type) of the model and everything in it, in the order of named_modules()."""
        model_type = config.get("model_type", self.classes[architecture]["model_type"])
        return list(self._walk("", architecture, model_type, config, None))

    def _walk(self, path, name, model_type, section, submodels):
        yield path, name, model_type
        if submodels is None:
            submodels = self.classes.get(name, {}).get("submodels", [])
        for child in submodels:
            if self._exists(child.get("when"), section):
                child_path = f"{path}.{child['path']}" if path else child["path"]
                yield from self._walk(child_path, *self._child(child, model_type, section))

    def _child(self, child, parent_model_type, section):
        """Class, model_type, section and own composition (or None) of a sub-model."""
        if child["config"] == "":
            return child["class"], parent_model_type, section, child.get("submodels")
        own = self._at(section, child["config"])
        if not isinstance(own, dict):
            own = section if child.get("flat") else {}
        found = own.get("model_type")
        if found is None or child.get("model_type_fixed"):
            found = child["model_type"]
        alias = child.get("aliases", {}).get(found, {})
        model_type, pick_by = alias.get("model_type", found), alias.get("config", found)
        if "class" in child:
            return child["class"], model_type, own, child.get("submodels")
        for auto in (child["auto"], child.get("auto_fallback")):
            if auto and pick_by in self.auto[auto]:
                composition = child.get("submodels") if pick_by == child["model_type"] else None
                return self.auto[auto][pick_by], model_type, own, composition
        raise LookupError(f"{child['auto']} knows no model_type {pick_by!r}, for {child['path']}")

    def _exists(self, when, section):
        if when is None:
            return True
        value = self._at(section, when["key"])
        if when.get("is") == "object":
            return isinstance(value, dict)
        if when.get("is") == "absent":
            return value is None
        if value is None:
            value = when["default"]
        return value == when["is"] if "is" in when else value != when["not"]

    @staticmethod
    def _at(section, path):
        for key in path.split("."):
            section = section.get(key) if isinstance(section, dict) else None
        return section

    def resolve(self, architecture, config):
        """Sub-models and the flattened transforms, scoped ones with scope_prefix and base_model_prefix.

        A class name is looked up before a model_type. A model that has transforms claims its class name, and its model_type
        if they were found by that, for all that is below it.
        """
        submodels = self.submodels(architecture, config)
        base_model_prefix = self.classes[architecture]["base_model_prefix"]
        claims, transforms = defaultdict(list), []

        def claimed(identifier, path):
            return any(claim == "" or path.startswith(f"{claim}.") for claim in claims[identifier])

        for path, name, model_type in submodels:
            if claimed(name, path):
                continue
            found = self.transforms_of(name)
            claim = [name]
            if found is None:
                if claimed(model_type, path):
                    continue
                found = self.transforms_of(model_type)
                claim = [name, model_type]
            if found is None:
                continue
            scope = {}
            if path:
                scope_prefix = path.removeprefix(base_model_prefix).removeprefix(".")
                scope = {"scope_prefix": scope_prefix, "base_model_prefix": base_model_prefix}
            transforms += [transform | scope for transform in found]
            for identifier in claim:
                claims[identifier].append(path)
        return submodels, transforms


CLIP = {"model_type": "clip_vision_model"}
SIGLIP = {"model_type": "siglip_vision_model"}
OUTPUTS = {"out_indices": [1, 2, 3, 4]}
FLAT = {"text_config": None, "vision_config": None}


def text(model_type, **values):
    return {"text_config": {"model_type": model_type} | values}


# Class and what its sample config.json is changed to; None takes the key out.
SWAPPED = [
    ("LlavaForConditionalGeneration", text("qwen3_moe") | {"vision_config": SIGLIP}),
    ("LlavaForConditionalGeneration", text("mistral") | {"vision_config": CLIP}),
    ("LlavaForConditionalGeneration", text("mixtral") | {"vision_config": CLIP}),
    ("LlavaForConditionalGeneration", text("minimax") | {"vision_config": CLIP}),
    ("LlavaForConditionalGeneration", text("gpt_oss") | {"vision_config": {"model_type": "pixtral"}}),
    ("LlavaForConditionalGeneration", text("deepseek_v3") | {"vision_config": {"model_type": "internvl_vision"}}),
    ("LlavaModel", text("granitemoe") | {"vision_config": SIGLIP}),
    ("LlavaNextForConditionalGeneration", text("olmoe") | {"vision_config": SIGLIP}),
    ("LlavaOnevisionForConditionalGeneration", text("qwen2_moe") | {"vision_config": CLIP}),
    ("VipLlavaForConditionalGeneration", text("phimoe")),
    ("InternVLForConditionalGeneration", text("qwen3_moe")),
    ("InternVLForConditionalGeneration", text("gpt_oss")),
    ("Mistral3ForConditionalGeneration", text("mixtral") | {"vision_config": SIGLIP}),
    ("PaliGemmaForConditionalGeneration", text("gemma2") | {"vision_config": CLIP}),
    ("Gemma3ForConditionalGeneration", text("gemma3")),
    ("VoxtralForConditionalGeneration", text("mixtral")),
    ("Qwen2AudioForConditionalGeneration", text("qwen3_moe")),
    ("FuyuForCausalLM", text("qwen3_moe")),
    ("Idefics2ForConditionalGeneration", text("mixtral", pad_token_id=0)),
    ("Blip2ForConditionalGeneration", text("t5") | {"use_decoder_only_language_model": False}),
    ("Blip2ForConditionalGeneration", text("mixtral") | {"use_decoder_only_language_model": None}),
    ("InstructBlipForConditionalGeneration", text("t5") | {"use_decoder_only_language_model": None}),
    ("ColQwen2ForRetrieval", {"vlm_config": {"model_type": "qwen2_5_vl"}}),
    ("EncoderDecoderModel", {"encoder": {"model_type": "mixtral"}, "decoder": {
        "model_type": "roberta", "is_decoder": True, "add_cross_attention": True}}),
    ("VisionEncoderDecoderModel", {"encoder": {"model_type": "swin"}, "decoder": {"model_type": "bart"}}),
    ("VisionEncoderDecoderModel", {"encoder": CLIP, "decoder": {"model_type": "trocr"}}),
    ("MaskFormerForInstanceSegmentation", {"backbone_config": {"model_type": "resnet"} | OUTPUTS}),
    ("Mask2FormerForUniversalSegmentation", {"backbone_config": {"model_type": "dinov2"} | OUTPUTS}),
    ("OneFormerForUniversalSegmentation", {"backbone_config": {"model_type": "resnet"} | OUTPUTS}),
    ("UperNetForSemanticSegmentation", {"backbone_config": {"model_type": "beit"} | OUTPUTS}),
    ("DetrForObjectDetection", {"backbone_config": {"model_type": "swin"} | OUTPUTS}),
    ("DetrForObjectDetection", {"backbone_config": {"model_type": "timm_backbone", "backbone": "resnet50"} | OUTPUTS}),
    ("RTDetrForObjectDetection", {"backbone_config": {"model_type": "resnet", "out_indices": [2, 3, 4]}}),
    ("DepthAnythingForDepthEstimation", {"backbone_config": {"model_type": "dinov3_vit"} | OUTPUTS}),
    ("DPTForDepthEstimation", {"backbone_config": {"model_type": "dinov2", "reshape_hidden_states": False} | OUTPUTS}),
    # What another model_type in a section with a fixed class does
    ("Qwen3VLForConditionalGeneration", {"vision_config": {"model_type": "qwen3_vl"}}),
    ("Qwen3VLMoeForConditionalGeneration", {"vision_config": {"model_type": "qwen3_vl_moe"}}),
    ("Qwen2_5_VLForConditionalGeneration", {"vision_config": {"model_type": "qwen2_5_vl"}}),
    ("Qwen2VLForConditionalGeneration", {"vision_config": {"model_type": "qwen2_vl"}} | text("qwen2")),
    ("Qwen2_5_VLForConditionalGeneration", text("qwen3_moe")),
    ("Gemma3nForConditionalGeneration", text("mixtral")),
    ("Llama4ForConditionalGeneration", text("qwen3_moe")),
    ("MiniMaxM3SparseForConditionalGeneration", text("minimax_m2") | {"vision_config": CLIP}),
    ("Kimi_K25ForConditionalGeneration", text("kimi_k2")),
    ("Exaone4_5_ForConditionalGeneration", text("exaone4_5_text")),
    ("LlavaForConditionalGeneration", {"model_type": "vipllava"}),
    # Sections that are missing, as in old files
    ("Qwen2VLForConditionalGeneration", FLAT),
    ("Qwen2_5_VLForConditionalGeneration", FLAT),
    ("Glm4vForConditionalGeneration", FLAT),
    ("Glm4vMoeForConditionalGeneration", {"text_config": None}),
    ("Ernie4_5_VLMoeForConditionalGeneration", FLAT),
    ("Qwen3VLMoeForConditionalGeneration", FLAT),
    ("Kimi_K25ForConditionalGeneration", {"text_config": {}, "vision_config": {}}),
    ("LlavaForConditionalGeneration", FLAT),
    ("LlavaForConditionalGeneration", {"text_config": {"hidden_size": 512, "num_attention_heads": 8}}),
    # Sub-models that a config value adds, drops or exchanges
    ("Gemma4ForConditionalGeneration", {"audio_config": None}),
    ("Gemma4ForConditionalGeneration", FLAT | {"audio_config": None}),
    ("Qwen2_5OmniForConditionalGeneration", {"enable_audio_output": False}),
    ("Qwen3OmniMoeForConditionalGeneration", {"enable_audio_output": False}),
    ("BltForCausalLM", {"patch_in_forward": False}),
    ("T5GemmaForSequenceClassification", {"is_encoder_decoder": False}),
]


def swap(values, changes):
    swapped = values | changes
    return {key: value for key, value in swapped.items() if value is not None or key not in changes}


def expected(model):
    """What transformers says: its sub-models, and its flattened conversions."""
    submodels = [(path, type(module).__name__, module.config.model_type)
                 for path, module in model.named_modules() if isinstance(module, PreTrainedModel)]
    transforms = []
    for transform in get_model_conversion_mapping(model, add_legacy=False):
        described = generator.describe_transform(transform)
        if transform.scope_prefix is not None:
            described["scope_prefix"] = transform.scope_prefix
            described["base_model_prefix"] = transform.base_model_prefix
        transforms.append(described)
    return plain(submodels), plain(transforms)


def plain(value):
    """As it reads after a trip through JSON, for comparing."""
    return json.loads(json.dumps(value))


def run_program(program, version, architecture, config):
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "config.json").write_text(json.dumps(config | {"architectures": [architecture]}), encoding="utf-8")
        done = subprocess.run([program, "rules", folder, "--transformers", version, "--json"], capture_output=True, text=True, timeout=120)
    if done.returncode != 0:
        raise RuntimeError(f"exit status {done.returncode}: {done.stderr.strip()[:300]}")
    answer = json.loads(done.stdout)
    return [[model["path"], model["class"], model["model_type"]] for model in answer["submodels"]], answer["transforms"]


def difference(actual, wanted):
    """The first difference between two (sub-models, transforms), or None."""
    for what, mine, theirs in zip(("sub-model", "transform"), actual, wanted):
        for index in range(max(len(mine), len(theirs))):
            ours = mine[index] if index < len(mine) else "nothing"
            right = theirs[index] if index < len(theirs) else "nothing"
            if ours != right:
                return f"{what} {index}: {ours}, transformers has {right}"
    return None


class Checker:
    def __init__(self, registry, program):
        self.registry, self.program = registry, program
        self.pool = ThreadPoolExecutor(max_workers=2)
        self.answers, self.unbuilt = [], []
        self.cases, self.differing = defaultdict(set), defaultdict(set)

    def check(self, kind, label, name, model_class, config_class, values):
        """Compare one class with one config.json. The program's answers are awaited at the end."""
        try:
            model = generator.build(model_class, config_class, values)
            wanted = expected(model)
            files = {"": plain(values)}
            if kind == "class":  # an export has the config.json that the instantiated model saves
                files[" as saved"] = generator.config_file(model.config)
        except Exception as error:
            reason = str(error).strip()[:120].replace("\n", " ")
            self.unbuilt.append((kind, label, f"{type(error).__name__}: {reason}"))
            return
        self.cases[kind].add(label)
        for form, config in files.items():
            try:
                found = difference(plain(self.registry.resolve(name, config)), wanted)
            except LookupError as error:
                found = f"{type(error).__name__}: {error}"
            if found:
                self.report(kind, label, f"mapping file, config{form}: {found}")
        if self.program:
            self.answers.append((kind, label, wanted, self.pool.submit(run_program, self.program, self.registry.version, name, config)))

    def report(self, kind, label, text):
        self.differing[kind].add(label)
        print(f"{label}: {text}")

    def await_program(self):
        for kind, label, wanted, answer in self.answers:
            try:
                found = difference(answer.result(), wanted)
            except (RuntimeError, OSError, ValueError, KeyError, subprocess.TimeoutExpired) as error:
                found = str(error)
            if found:
                self.report(kind, label, f"program: {found}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    version = transformers.__version__
    parser.add_argument("--mapping", default=f"data/mappings/transformers-{version}.json", help="default: %(default)s")
    parser.add_argument("--program", help="also compare what PROGRAM rules DIR --json says")
    parser.add_argument("--match", default="", help="only classes whose name matches this regular expression")
    arguments = parser.parse_args()
    transformers.logging.set_verbosity(transformers.logging.CRITICAL)
    generator.stand_in_for_optional_libraries()
    checker = Checker(Registry(arguments.mapping), arguments.program)
    models = generator.auto_models()
    for name, (model_class, config_class) in models.items():
        if re.search(arguments.match, name):
            values = generator.sample_config(model_class, config_class)
            checker.check("class", name, name, model_class, config_class, values)
    for name, changes in SWAPPED:
        if re.search(arguments.match, name):
            values = swap(generator.sample_config(*models[name]), changes)
            checker.check("swapped", f"{name} with {json.dumps(changes)}", name, *models[name], values)
    checker.await_program()
    for kind, label, reason in checker.unbuilt:
        print(f"{kind} not built: {label}: {reason}")
    (classes, good), (swapped, good_swapped) = (
        (len(checker.cases[kind]), len(checker.cases[kind] - checker.differing[kind])) for kind in ("class", "swapped"))
    print(f"{good} of {classes} classes equal, {good_swapped} of {swapped} swapped compositions equal"
          f"{', by the program too' if arguments.program else ''}")
    unusable = any(kind == "swapped" for kind, _, _ in checker.unbuilt)
    return 0 if good == classes and good_swapped == swapped and classes + swapped and not unusable else 1


if __name__ == "__main__":
    sys.exit(main())
