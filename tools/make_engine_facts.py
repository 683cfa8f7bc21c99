#!/usr/bin/env python3
"""Writes data/engines/ENGINE-VERSION.json: what an engine does with a checkpoint's names, found out by asking it.

    QUANTPORT=build/release/quantport .venv-engines/bin/python tools/make_engine_facts.py vllm|sglang [--model NAME ...]

Every architecture of tests/engines/models.py is loaded by the engine itself, as a tiny hub checkpoint: a
config that quantizes nothing records every layer's prefix and kind, and the harness into which parameter each tensor
goes. Algorithms are asked what parameters they make, from which follow the leaves that a layer reads, with dtypes and
shapes. docs/engines.md describes the file.
"""
import argparse
import json
import os
import re
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, f"{ROOT}/tests/engines")

import cells
import harness
import models

DTYPES = {"torch.uint8": "U8", "torch.int8": "I8", "torch.float8_e4m3fn": "F8_E4M3", "torch.float32": "F32",
          "torch.bfloat16": "BF16"}
# Algorithms of ModelOpt's configs, with the group size that the config states; vLLM reads its own spelling of them all.
ALGORITHMS = {"FP8": None, "FP8_PER_CHANNEL_PER_TOKEN": None, "FP8_PB_WO": 128, "NVFP4": 16, "W4A16_NVFP4": 16,
              "W4A8_NVFP4_FP8": 32, "NVFP4_AWQ": 16, "MXFP8": 32, "MXFP4": 32, "W4A8_MXFP4_FP8": 32, "W8A16": None,
              "W4A16": 128, "W4A16_AWQ": 128, "W8A8_SQ_PER_CHANNEL": None, "INT8": None,
              "fp8-tiles": None}
# Sizes of the layers that are asked for their parameters: no two shapes of any format are alike.
OUT, IN = 384, 640
PROBED = {"linear": ("llama", "o_proj"), "experts": ("qwen3_moe", "experts")}


def reason(fault):
    """The engine's own sentence in an error's text."""
    text = re.sub(r"(?s)^\w+: .*?Value error, (.*?) \[type=.*", r"\1", fault)
    return " ".join(re.sub(r"^\w+(Error|Exception): (?=.)", "", text).split())[:240]


def template(name):
    """The name with every number as *."""
    return re.sub(r"(?<![^.])\d+(?![^.])", "*", name)


def layers_of(recording, placed):
    """The layers that were recorded, by template: prefix, kind, and the hub modules whose weights each holds, those
    that share a parameter together. And the names that belong to no layer that could be quantized."""
    paths = {id(module): path for path, module in recording.model.named_modules()}
    layers, inside = {}, {}
    for layer, prefix, kind in recording.layers:
        if id(layer) not in paths or kind == "other":
            continue
        entry = layers.setdefault((template(prefix), kind), [])
        if kind in ("linear", "experts"):
            inside[paths[id(layer)]] = entry
    plain = set()
    for parameter, sources in placed.items():
        path = parameter.rpartition(".")[0]
        while path and path not in inside:
            path = path.rpartition(".")[0]
        if not path:
            plain.update(template(name) for name in sources)
            continue
        modules = list(dict.fromkeys(template(name).rpartition(".")[0] for name in sources if name.endswith(".weight")))
        biases = [template(name) for name in sources if name.endswith(".bias")]
        others = [template(name) for name in sources if not name.endswith((".weight", ".bias"))]
        if modules and modules not in inside[path]:
            inside[path].append(modules)
        plain.update(biases + others)
    return ([{"prefix": prefix, "kind": kind, "parts": parts} for (prefix, kind), parts in sorted(layers.items())],
            sorted(plain))


def ask_architecture(engine, folder):
    """Run in a process of its own: harness.run's report with what was recorded."""
    recording = engine.recording_config()
    report = engine.load(folder, recording=recording)
    layers, plain = layers_of(recording, report["placed"])
    return {"class": report["class"], "layers": layers, "plain": plain, "unused": report["unused"],
            "unwritten": report["unwritten"], **engine.mapping_of(recording)}


class Asking:
    """An engine in the form that harness.run loads, answering with one of the functions here."""

    def __init__(self, engine, function):
        self.engine, self.function = engine, function

    def load(self, folder):
        return {"unused": [], "unwritten": [], "warnings": [], "partly": [], "casts": {}, "ignored": [],
                **self.function(self.engine, folder)}


def add_tensor(folder, name):
    """Adds a tensor that no model has to the checkpoint."""
    import torch
    from safetensors.torch import load_file, save_file
    path = f"{folder}/model.safetensors"
    tensors = load_file(path)
    tensors[name] = torch.zeros(4, 4, dtype=torch.bfloat16)
    save_file(tensors, path, metadata={"format": "pt"})


def architecture(engine, name, scratch):
    hub = f"{scratch}/{name}/hub"
    models.save(name, hub)
    with open(f"{hub}/config.json") as file:
        config = json.load(file)
    # Some engines have another class for quantized checkpoints.
    for asked_config in ({**config, "quantization_config": quantization_config("NVFP4", 16)}, config):
        with open(f"{hub}/config.json", "w") as file:
            json.dump(asked_config, file)
        asked = harness.run(Asking(engine, ask_architecture), hub)
        if asked["verdict"] != "raises":
            break
    with open(f"{hub}/config.json", "w") as file:
        json.dump(config, file)
    if asked["verdict"] == "raises":
        return reason(asked["faults"][0])
    facts = {key: asked[key] for key in ("class", "mapper", "packed", "layers", "plain")}
    facts["skipped"] = sorted({template(n) for n in asked["unused"]})
    quantized = f"{scratch}/{name}/quantized"
    calibration = cells.write_calibration(hub, f"{scratch}/{name}")
    if cells.quantize(hub, "nvfp4_default-kv_fp8", quantized, calibration).returncode == 0:
        report = harness.run(engine, quantized)
        facts["cache_scales"] = "read" if report["verdict"] != "raises" and not any(
            n.endswith((".k_scale", ".v_scale")) for n in report["unused"]) else "unread"
    add_tensor(hub, "model.layers.0.no_such_module.weight")
    facts["unknown"] = "raises" if harness.run(engine, hub)["verdict"] == "raises" else "skips"
    return facts


def expression(size):
    for name, value in (("out", OUT), ("in", IN), ("in/2", IN // 2), ("in/16", IN // 16), ("in/32", IN // 32),
                        ("in/128", IN // 128), ("out/128", OUT // 128), ("1", 1)):
        if size == value:
            return name
    return str(size)


def parameters_of(kind):
    def ask(engine, folder):
        model = engine.build(folder)
        for path, layer in model.named_modules():
            if path.endswith(f".{PROBED[kind][1]}") or path.endswith(f".{PROBED[kind][1]}.routed_experts"):
                own = dict(layer.named_parameters(recurse=False))
                if own:
                    break
        leaves = {}
        for name, parameter in own.items():
            shape = list(parameter.shape)
            leaf = name
            if harness.DEFAULTED.search(name):
                continue
            if kind == "experts":
                if not name.startswith("w2_"):
                    continue
                leaf, shape = name.removeprefix("w2_"), shape[1:]
            leaves[leaf] = [DTYPES.get(str(parameter.dtype), str(parameter.dtype)),
                            [expression(size) for size in shape]]
            if f"{path}.{name}" in engine.ignored(model):
                leaves[leaf].append("optional")
        return {"leaves": leaves, "method": type(layer.quant_method).__name__}
    return ask


def quantization_config(algorithm, group_size):
    if algorithm == "fp8-tiles":  # as DeepSeek and Qwen publish
        return {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128],
                "ignored_layers": ["lm_head"]}
    config = {"quant_method": "modelopt", "quant_algo": algorithm, "ignore": ["lm_head"]}
    if group_size:
        config["group_size"] = group_size
    return config


def methods(engine, scratch):
    """What each algorithm's layers read: leaf -> dtype and shape, or why there is no such layer."""
    settings = {"llama": {"hidden_size": OUT, "num_attention_heads": 8, "head_dim": 80, "num_key_value_heads": 8},
                "qwen3_moe": {"hidden_size": OUT, "moe_intermediate_size": IN, "num_attention_heads": 6,
                              "num_key_value_heads": 6, "head_dim": 64}}
    found = {}
    for kind, (name, _) in PROBED.items():
        architecture_name, sizes, keys = models.MODELS[name]
        models.MODELS["probed"] = (architecture_name, {**sizes, **settings[name], "num_hidden_layers": 1}, keys)
        folder = f"{scratch}/{kind}"
        models.save("probed", folder)
        with open(f"{folder}/config.json") as file:
            config = json.load(file)
        for algorithm, group_size in ALGORITHMS.items():
            with open(f"{folder}/config.json", "w") as file:
                json.dump({**config, "quantization_config": quantization_config(algorithm, group_size)}, file)
            asked = harness.run(Asking(engine, parameters_of(kind)), folder)
            answer = {"refused": reason(asked["faults"][0])} if asked["verdict"] == "raises" else asked["leaves"]
            found.setdefault(algorithm, {})[kind] = answer
    # Of each layer by its own; vLLM and SGLang both read it, and which algorithms it may name are those above.
    found["MIXED_PRECISION"] = {}
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("engine", choices=("vllm", "sglang"))
    parser.add_argument("--model", action="append", help="only these; the others' facts stay as they are")
    arguments = parser.parse_args()
    engine = harness.engine(arguments.engine)
    path = f"{ROOT}/data/engines/{arguments.engine}-{engine.version()}.json"
    facts = {"engine": arguments.engine, "version": engine.version(), "held": True, "methods": {}, "architectures": {},
             "not_asked": {}}
    if arguments.model:
        with open(path) as file:
            facts = json.load(file)
    with tempfile.TemporaryDirectory() as scratch:
        names = arguments.model or list(models.MODELS)
        if not arguments.model:
            facts["methods"] = methods(engine, scratch)
        for name in names:
            found = architecture(engine, name, scratch)
            # Hubs' own checkpoints are loaded by the engine: what raised is this machine's.
            where = facts["not_asked"] if isinstance(found, str) else facts["architectures"]
            where[models.MODELS[name][0]] = found
            print(name, flush=True)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as file:
        json.dump(facts, file, indent=1)
        file.write("\n")


if __name__ == "__main__":
    main()
