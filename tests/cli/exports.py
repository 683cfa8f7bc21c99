"""Hand-made tiny exports: tensors of quantized linears, configs, and the byte ranges that a reversal should give.

A tensor is (name, dtype, shape, bytes); its bytes depend on its name unless a key is given.
"""
from program import byte_count, fill

MODELOPT = {"name": "modelopt", "version": "0.47.0"}


def tensor(name, dtype, shape, key=None):
    return (name, dtype, shape, fill(key or name, byte_count(dtype, shape)))


def bf16(name, *shape):
    return tensor(name, "BF16", list(shape))


def nvfp4(module, out, inner, scalars=None, bias=False, input_scale=True):
    """A linear in NVFP4. Linears that are fused on the hub share the scalars of the key `scalars`."""
    scalars = scalars or module
    tensors = [tensor(f"{module}.weight", "U8", [out, inner // 2]),
               tensor(f"{module}.weight_scale", "F8_E4M3", [out, inner // 16]),
               tensor(f"{module}.weight_scale_2", "F32", [], f"{scalars} 2")]
    if input_scale:
        tensors.append(tensor(f"{module}.input_scale", "F32", [], f"{scalars} input"))
    return tensors + ([bf16(f"{module}.bias", out)] if bias else [])


def fp8(module, out, inner, scale_shape=(), leaf="weight_scale", input_scale=True):
    """A linear in FP8; the shape of the scale says whether per tensor, per channel or per block."""
    tensors = [tensor(f"{module}.weight", "F8_E4M3", [out, inner]),
               tensor(f"{module}.{leaf}", "F32", list(scale_shape))]
    if input_scale:
        tensors.append(tensor(f"{module}.input_scale", "F32", []))
    return tensors


def as_dict(tensors):
    """name -> (dtype, shape, bytes), as read_checkpoint gives it."""
    out = {}
    for name, dtype, shape, body in tensors:
        assert name not in out, name
        out[name] = (dtype, list(shape), body)
    return out


def renamed(tensors, *pairs):
    """The same tensors with the first matching (old, new) text replaced in their names."""
    out = []
    for name, *rest in tensors:
        for old, new in pairs:
            if old in name:
                name = name.replace(old, new)
                break
        out.append((name, *rest))
    return out


def rows(stored, begin, end):
    """(dtype, shape, bytes) of the rows [begin, end) along the first dimension; a 0-d tensor is given whole."""
    dtype, shape, body = stored
    if not shape:
        return stored
    step = len(body) // shape[0]
    return dtype, [end - begin, *shape[1:]], body[begin * step:end * step]


def entry(stored, index):
    """One entry of a leading expert dimension, which goes away; a 0-d tensor is given whole."""
    dtype, shape, body = rows(stored, index, index + 1) if stored[1] else stored
    return dtype, shape[1:], body


def modelopt_config(architecture, model_type, algorithm="NVFP4", exclude=(), **more):
    """config.json of a ModelOpt export."""
    scheme = {"dynamic": False, "num_bits": 4, "type": "float", "group_size": 16}
    return {"architectures": [architecture], "model_type": model_type, **more,
            "quantization_config": {"config_groups": {"group_0": {"input_activations": scheme, "weights": scheme,
                                                                  "targets": ["Linear"]}},
                                    "ignore": list(exclude), "quant_algo": algorithm, "producer": MODELOPT,
                                    "quant_method": "modelopt"}}


def hf_quant_config(exclude=(), algorithm="NVFP4", **more):
    return {"producer": MODELOPT,
            "quantization": {"quant_algo": algorithm, "kv_cache_quant_algo": None, "group_size": 16,
                             "exclude_modules": list(exclude), **more}}


def mixtral_config(**more):
    return modelopt_config("MixtralForCausalLM", "mixtral", **more)


def minimax_config(**more):
    return modelopt_config("MiniMaxM3SparseForConditionalGeneration", "minimax_m3_vl",
                           text_config={"model_type": "minimax_m3_vl_text"},
                           vision_config={"model_type": "minimax_m3_vl_vision"}, **more)


def radio_config(**more):
    return modelopt_config("RadioModel", "radio", **more)
