"""The checkpoints of tests/golden/layouts: how each is read, and what its weights become on the hub."""
import functools
import json
import os

import oracle
from dtypes import Tensor, count
from program import ROOT, read_checkpoint, read_file

LAYOUTS = f"{ROOT}/tests/golden/layouts"
MAPPING = f"{LAYOUTS}/mapping.json"
NAMES = sorted(name for name in os.listdir(LAYOUTS) if os.path.isdir(f"{LAYOUTS}/{name}"))
FUSED, SINGLE = "model.layers.0.attn.qkv", "model.layers.0.attn.o"
HUB = "transformer.h.0"


def load(path):
    with open(path, encoding="utf-8") as f:
        return json.load(f)


def compressed_tensors(config):
    weights = config["config_groups"]["group_0"]["weights"]
    strategy = weights["strategy"]
    settings = {"strategy": strategy, "bits": weights["num_bits"],
                "size": weights["block_structure"] if strategy == "block" else weights["group_size"]}
    form = config["format"]
    if form == "nvfp4-pack-quantized":
        return oracle.fp4, settings | {"strategy": "group", "outer": "weight_global_scale"}
    if form in ("mxfp4-pack-quantized", "mxfp8-quantized"):
        return (oracle.fp4 if "fp4" in form else oracle.numbers), settings | {"strategy": "exponents"}
    return (oracle.packed if form == "pack-quantized" else oracle.numbers), settings


def modelopt(algorithm, size):
    algorithm = algorithm.upper()
    if "NVFP4" in algorithm:
        return oracle.fp4, {"strategy": "group", "size": size, "outer": "weight_scale_2"}
    if "MXFP" in algorithm:
        return (oracle.numbers if "MXFP8" in algorithm else oracle.fp4), {"strategy": "exponents", "size": 32}
    if algorithm in ("W4A16_AWQ", "W4A8_AWQ"):
        return oracle.int4, {"size": size}
    return oracle.numbers, {"FP8": {"strategy": "tensor"}, "FP8_PB_WO": {"strategy": "block", "size": [128, 128]},
                            "FP8_PER_CHANNEL_PER_TOKEN": {"strategy": "channel"}, "W8A16": {"strategy": "channel"},
                            "W8A8_SQ_PER_CHANNEL": {"strategy": "channel"}}[algorithm]


def decoder_of(config, hf_config):
    """The decoder and its settings, from the configs alone."""
    method = config["quant_method"]
    if method == "compressed-tensors":
        return compressed_tensors(config)
    if method == "modelopt":
        quantization = hf_config["quantization"]
        return modelopt(quantization["quant_algo"], quantization.get("group_size"))
    if method == "fp8":
        return oracle.numbers, {"strategy": "block", "size": config["weight_block_size"]}
    if method == "gptq":
        return oracle.gptq, {"bits": config["bits"], "size": config["group_size"]}
    if method == "awq":
        return oracle.awq, {"size": config["group_size"], "leaves": ("qweight", "qzeros", "scales")}
    if method == "quark":
        return oracle.awq, {"size": config["global_quant_config"]["weight"]["group_size"],
                            "leaves": ("weight", "weight_zero_point", "weight_scale")}
    if method == "mxfp4":
        return oracle.gpt_oss, {}
    if config["load_in_8bit"]:
        return oracle.bnb8, {}
    return oracle.bnb4, {"kind": config["bnb_4bit_quant_type"]}


class Golden:
    def __init__(self, name):
        self.name = name
        self.config = load(f"{LAYOUTS}/{name}/export/config.json")
        self.config["dtype"] = "float32"
        hf = f"{LAYOUTS}/{name}/export/hf_quant_config.json"
        self.extra = {"hf_quant_config.json": load(hf)} if os.path.exists(hf) else {}
        self.export = {key: Tensor(*tensor) for key, tensor in read_checkpoint(f"{LAYOUTS}/{name}/export").items()}
        self.hub = {key: Tensor(*tensor) for key, tensor in read_file(f"{LAYOUTS}/{name}/expected.safetensors").items()}
        self.decoder, self.settings = decoder_of(self.config["quantization_config"],
                                                 self.extra.get("hf_quant_config.json"))

    def modules(self):
        """Quantized modules of the export, stacked experts as well."""
        return [module for module in (FUSED, SINGLE, "model.layers.0.experts.gate_up_proj",
                                      "model.layers.0.experts.down_proj", "model.layers.0.packed.down_proj")
                if parts_of(self.export, module)]

    @functools.lru_cache(maxsize=16)
    def read_original(self, module, from_hub):
        return self.read(self.hub if from_hub else self.export, module)

    def reference(self):
        """name -> tensor, all plain, under the names in memory."""
        tensors = {"lm_head.weight": self.export["lm_head.weight"]}
        for module in self.modules():
            shape = self.read_original(module, False).shape
            tensors[part_name(module, "weight")] = Tensor("BF16", shape, bytes(2 * count(shape)))
        return tensors

    def read(self, tensors, module):
        parts = parts_of(tensors, module)
        decoder = self.decoder
        if decoder is oracle.numbers and ".experts." in module and module.endswith("_proj"):
            decoder = oracle.stacked_blocks
        return oracle.read(parts, decoder, self.settings)


def part_name(module, leaf):
    """The tensor of which parts_of makes this leaf."""
    if not module.endswith("_proj"):
        return f"{module}.{leaf}"
    return module if leaf == "weight" else f"{module}_{leaf.removeprefix('weight_')}"


def parts_of(tensors, module):
    """leaf -> tensor. Of a bare parameter P the leaves are P, P_scale_inv, P_blocks ..."""
    parts = {}
    for name, tensor in tensors.items():
        if name == module:
            parts["weight"] = tensor
        elif name.startswith(f"{module}."):
            parts[name[len(module) + 1:]] = tensor
        elif name.startswith(f"{module}_"):
            leaf = name[len(module) + 1:]
            parts[f"weight_{leaf}" if leaf == "scale_inv" else leaf] = tensor
    return parts


def hub_parts(module, shape):
    """What the mapping makes of a module: (hub module, the index in it -> the index in the whole, its shape)."""
    if module == SINGLE:
        return [(f"{HUB}.attn.o", lambda *index: index, shape)]
    if module == FUSED:
        rows, columns = shape[0] // 3, shape[1]
        return [(f"{HUB}.attn.{name}", lambda row, column, i=i: (i * rows + row, column), [rows, columns])
                for i, name in enumerate("qkv")]
    experts, rows, columns = shape
    if module.endswith("packed.down_proj"):
        return [(f"{HUB}.packed.{e}.down_proj", lambda row, column, e=e: (e, row, column), [rows, columns])
                for e in range(experts)]
    if module.endswith("experts.down_proj"):
        return [(f"{HUB}.experts.{e}.down", lambda row, column, e=e: (e, row, column), [rows, columns])
                for e in range(experts)]
    half = rows // 2
    return [(f"{HUB}.experts.{e}.{name}", lambda row, column, e=e, i=i: (e, i * half + row, column), [half, columns])
            for e in range(experts) for i, name in enumerate(("gate", "up"))]
