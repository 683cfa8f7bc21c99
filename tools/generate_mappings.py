#!/usr/bin/env python3
"""Write the registry of checkpoint conversion mappings: data/mappings/transformers-<version>.json.

At load time transformers renames and fuses the tensors of a checkpoint. Which transforms apply is decided by walking the
instantiated model: each sub-model is looked up by class name, then by model_type, and may itself have been chosen by
config.json (AutoModel, AutoBackbone, ...). quantport has no Python and no instantiated model, so this program records, for
the installed transformers, all that the walk depends on. It stores the composition of each class, never a flattened list,
because another text or vision tower flattens to other transforms. `Registry` in check_mappings.py shows how it is read.

The result, one class or conversion key a line:

conversions  key (class name or model_type) -> transforms with their unprocessed patterns, or "=KEY": those of another key
auto         auto class -> {model_type: class that from_config picks}, of the auto classes that build some sub-model, less
             the entries that would build a multimodal config's text part only
classes      class -> model_type, base_model_prefix, tied_weights (target -> source, in transformers' own words) and
             submodels: the transformers models directly below it, in the order of named_modules()

A sub-model:

path         of the module, relative to its parent
config       path of its config in the parent's config.json section; "" is the parent's own section (and model_type)
class, auto  the class, or the auto class that picks it by the section's model_type
auto_fallback  auto class that is asked when `auto` does not know the model_type
model_type   what the section has when it, or the key, is missing
model_type_fixed  true: a model_type found in the section is ignored (otherwise it replaces the default)
aliases      {model_type found: {"model_type": what it turns into in transformers, "config": what to pick the class by}}
flat         true: when the section is missing, the parent's own section stands in for it (old, flat config files)
when         {"key", "is", "default"}: the sub-model exists if the parent's section has this value at `key` (dotted);
             "is" may be "object" (a section is there), "absent" (missing or null) or a literal; "not" instead negates
submodels    given if they differ from those of the class standing alone (of an auto sub-model: for the default model_type)

Classes are instantiated with their default configs on the meta device. The default of some is not a working model: SAMPLES
completes it. Where a config value decides which sub-models exist, VARIANTS names the value to compare with.
"""

import argparse
import copy
import functools
import importlib.util
import inspect
import json
import os
import re
import sys
import types
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers
from mapping_samples import SAMPLES, VARIANTS
from transformers import PreTrainedConfig, PreTrainedModel, conversion_mapping
from transformers.initialization import no_init_weights
from transformers.models.auto import modeling_auto
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.utils import import_utils


def from_package(name):
    """A module of the Python package by its file: where only transformers is installed, the package is not built."""
    path = Path(__file__).resolve().parent.parent / "python" / "quantport" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"quantport_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


package = from_package("conversions")
describe_transform, pattern_rules = package.describe_transform, package.pattern_rules


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


def config_class_of(model, default=None):
    try:
        return model.config_class or default
    except ImportError:  # the model's optional library is missing
        return default


def auto_models():
    """Class name -> (class, config class) for every model of the auto mappings."""
    found = {}
    for auto in auto_classes().values():
        for _, config_class, models in picks(auto):
            for model in models:
                found.setdefault(model.__name__, (model, config_class_of(model, config_class)))
    return dict(sorted(found.items()))


def auto_table(auto):
    return {model_type: models[0].__name__ for model_type, config_class, models in picks(auto)
            if config_class_of(models[0]) is not config_class.sub_configs.get("text_config", False)}


def stand_in_for_optional_libraries():
    """timm, PIL and natten are not needed to know a composition: give timm models without content in their place."""

    def timm_model(*_, out_indices=(1, 2, 3, 4), **__):
        model = torch.nn.Module()
        stages = [{"module": f"layer{i}", "num_chs": 64 << i, "index": i} for i in range(5)]
        used = stages[-len(out_indices):]
        model.feature_info = types.SimpleNamespace(
            info=stages, out_indices=[stage["index"] for stage in used], get_dicts=lambda: used,
            module_name=lambda: [stage["module"] for stage in used], channels=lambda: [stage["num_chs"] for stage in used])
        model.num_features = 2048
        model.head = torch.nn.Linear(1, 1)
        return model

    # Docstrings name the processors of a model; looking them up imports what needs the real libraries.
    sys.modules["transformers.utils.auto_docstring"].get_placeholders_dict = lambda *_: {}
    import_utils.BACKENDS_MAPPING.update(dict.fromkeys(("timm", "vision", "natten"), (lambda: True, "")))
    from transformers.models.gemma3n import configuration_gemma3n
    from transformers.models.timm_backbone import modeling_timm_backbone
    from transformers.models.timm_wrapper import configuration_timm_wrapper, modeling_timm_wrapper

    modeling_timm_backbone.timm = modeling_timm_wrapper.timm = types.SimpleNamespace(create_model=timm_model)
    configuration_timm_wrapper.infer_imagenet_subset = configuration_gemma3n.infer_imagenet_subset = lambda config: None


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
        sections = isinstance(value, dict) and isinstance(old, dict)
        same_type = sections and value.get("model_type") in (None, old.get("model_type"))
        values[key] = merge(old, value) if same_type else copy.deepcopy(value)
    return values


def for_class(table, model_class, config_class):
    return table.get(model_class.__name__) or table.get(config_class.__name__)


def sample_config(model_class, config_class):
    """A config.json for which the class can be instantiated: its default, completed from SAMPLES."""
    try:
        values = config_file(config_class())
    except Exception:  # there is no default
        values = {"model_type": config_class.model_type}
    return merge(values, for_class(SAMPLES, model_class, config_class) or {})


def build(model_class, config_class, values):
    with torch.device("meta"), no_init_weights():
        return model_class(config_class(**copy.deepcopy(values)))


def config_path(parent, wanted, prefix=""):
    """The dotted path at which a config object is an attribute of another, or None."""
    if wanted is parent:
        return prefix
    for key, value in vars(parent).items():
        inside = isinstance(value, PreTrainedConfig)
        path = config_path(value, wanted, f"{prefix}.{key}" if prefix else key) if inside else None
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
            if self.where is None and self.model_type != parent.model_type:  # made by a property, not in config.json
                self.where = next(name for name, _ in inspect.getmembers(type(parent.config), inspect.isdatadescriptor)
                                  if type(getattr(parent.config, name, None)) is type(self.config))
            self.where = self.where or ""  # none: a copy of the parent's config
            if not self.where:
                self.auto = None  # the parent's class has settled what is picked

    def key(self):
        return self.path, self.where, self.name, self.auto, self.model_type if self.where else None


def composition(model):
    """The tree of transformers models, in named_modules() order (which names a shared module once)."""
    root = Node(model)
    nodes = [root]
    for path, module in model.named_modules():
        if path and isinstance(module, PreTrainedModel):
            around = [node for node in nodes if node is root or path.startswith(node.full_path + ".")]
            parent = max(around, key=lambda node: len(node.full_path))
            node = Node(module, parent, path.removeprefix(parent.full_path).removeprefix("."), path)
            parent.submodels.append(node)
            nodes.append(node)
    return root


def value_at(values, key):
    for part in key.split("."):
        values = values.get(part) if isinstance(values, dict) else None
    return values


def add_variant(node, variant, key, value, other, default):
    """Merge what another config value makes of a model: sub-models that only one of the values has get a condition."""
    if isinstance(value, dict) and isinstance(other, dict):  # two kinds of section, the sample's and an exceptional one
        rest = {"key": f"{key}.model_type", "default": (default or {}).get("model_type")}
        positive, negative = {"not": other["model_type"]} | rest, {"is": other["model_type"]} | rest
    elif isinstance(value, dict) or isinstance(other, dict):
        positive, negative = ({"is": "absent" if v is None else "object", "key": key} for v in (value, other))
    else:
        positive, negative = ({"is": v, "key": key, "default": default} for v in (value, other))
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
    """Whether a section has what a sub-model's condition asks for."""
    value = value_at(values, when["key"]) if when else None
    if when is None or when.get("is") in ("object", "absent"):
        return when is None or isinstance(value, dict) == (when["is"] == "object")
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
                self.failures[name] = f"{type(error).__name__}: " + str(error).strip()[:150].replace("\n", " ")
                continue
            self.classes[name] = root
            pending = list(root.submodels)
            for node in pending:
                pending += node.submodels
                below.setdefault(node.name, node)
                self.used |= {node.auto, node.auto_fallback}
        self.classes = below | self.classes

    def record(self, model_class, config_class):
        values = sample_config(model_class, config_class)
        root = composition(build(model_class, config_class, values))
        for changes in for_class(VARIANTS, model_class, config_class) or ():
            variant = composition(build(model_class, config_class, values | changes))
            key = next(iter(changes))
            add_variant(root, variant, key, values.get(key), changes[key], config_file(config_class()).get(key))
        return root

    def as_recorded(self, node):
        """Whether the sub-models of a nested model are those that its class is recorded with."""
        values = node.config.to_dict()
        expected = [s.key() for s in self.classes[node.name].submodels if holds(s.when, values)]
        actual = [s.key() for s in node.submodels if holds(s.when, values)]
        return actual == expected and all(self.as_recorded(s) for s in node.submodels)

    def describe(self, node):
        optional = {"tied_weights": node.tied_weights, "submodels": self.describe_submodels(node)}
        return {"model_type": node.model_type, "base_model_prefix": node.base_model_prefix} | {
            name: value for name, value in optional.items() if value}

    def describe_submodels(self, parent):
        children = []
        for node in parent.submodels:
            rules = self.section_rules(parent.config, node) if node.where else {}
            child = {"path": node.path, "config": node.where}
            child |= {"auto": node.auto} if rules.get("picking") else {"class": node.name}
            child["model_type"] = rules.get("default") or node.model_type
            optional = {name: rules.get(name) for name in ("aliases", "model_type_fixed", "flat")}
            optional |= {"auto_fallback": node.auto_fallback, "when": node.when}
            child |= {name: value for name, value in optional.items() if value}
            if not self.as_recorded(node):
                child["submodels"] = self.describe_submodels(node)
            children.append(child)
        return children

    def section_rules(self, parent_config, node):
        """Find out, by trying, what the parent's config class makes of the model_type in a section."""
        config_class, known = type(parent_config), (type(parent_config), node.where, node.auto)
        if known in self.sections:
            return self.sections[known]
        values = config_file(parent_config)

        def section(value):
            changed = copy.deepcopy(values)
            *parents, last = keys = node.where.split(".")
            functools.reduce(dict.__getitem__, parents, changed)[last] = value
            try:
                config = functools.reduce(getattr, keys, config_class(**changed))
            except Exception:  # nothing that transformers would accept
                return None
            return config if isinstance(config, PreTrainedConfig) else None

        source = inspect.getsource(sys.modules[config_class.__module__])
        lines = [line for line in source.splitlines() if "model_type" in line]
        written = {word for line in lines for word in re.findall(r'"([\w.-]+)"', line)}
        foreign = [t for t in ("llama", "bert", "clip_vision_model", "swin", "resnet") if t != node.model_type]
        results = {t: section({"model_type": t}) for t in sorted(written | {config_class.model_type, *foreign}) if t}
        results = {t: config for t, config in results.items() if config is not None}
        results |= {node.model_type: node.config}
        fixed = any(t in results and type(results[t]) is not CONFIG_MAPPING[t] for t in foreign)
        picking = bool(node.auto) and not fixed
        ignored = any(t in results and results[t].model_type == node.model_type for t in foreign)
        rules = {"picking": picking, "model_type_fixed": ignored, "aliases": {}}
        for model_type, config in () if ignored else results.items():
            kind = type(config).model_type
            if config.model_type != model_type or picking and kind != model_type:
                rules["aliases"][model_type] = {"model_type": config.model_type} | ({"config": kind} if picking else {})
        saved = type(node.config).model_type
        if picking and saved != node.model_type:  # building it exchanges the config for one that is saved so
            rules["aliases"][saved] = {"model_type": node.model_type, "config": saved}
        missing = section(None)
        if missing is not None and missing.model_type != node.model_type:
            rules["flat"] = missing.model_type == values["model_type"]
            rules["default"] = None if rules["flat"] else missing.model_type
        self.sections[known] = rules
        return rules


def write(path, registry):
    def table(values):
        return "{\n" + ",\n".join(f"  {json.dumps(key)}: {json.dumps(values[key])}" for key in sorted(values)) + "\n }"

    parts = [f" {json.dumps(name)}: {table(value) if isinstance(value, dict) else json.dumps(value)}"
             for name, value in registry.items()]
    Path(path).write_text("{\n" + ",\n".join(parts) + "\n}\n", encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", default=f"data/mappings/transformers-{transformers.__version__}.json")
    arguments = parser.parse_args()
    transformers.logging.set_verbosity(transformers.logging.CRITICAL)
    stand_in_for_optional_libraries()
    tag_auto_models()
    recorder = Recorder()
    recorder.record_all()
    write(arguments.output, {
        "format": 1, "library": "transformers", "version": transformers.__version__,
        "pattern_rules": pattern_rules(), "conversions": conversions(),
        "auto": {name: auto_table(auto) for name, auto in auto_classes().items() if name in recorder.used},
        "classes": {name: recorder.describe(node) for name, node in recorder.classes.items()},
    })
    for name, reason in recorder.failures.items():
        print(f"not built: {name}: {reason}")
    print(f"{arguments.output}: {len(recorder.classes)} classes, {len(recorder.failures)} of the auto mappings not built, "
          f"{os.path.getsize(arguments.output)} bytes")


if __name__ == "__main__":
    main()
