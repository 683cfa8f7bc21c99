"""What the tests of `quantport quantize` have in common: small hub checkpoints of our own, and numbers out of bytes."""
import struct
import zlib

from hub_models import fill
from program import ProgramTest, read_checkpoint, run, safetensors, write, write_checkpoint

WEIGHT_ONLY = "w4a16_nvfp4"


def weight(name, *shape):
    return (name, "BF16", list(shape), fill(name, shape))


def decoder(layers=1, hidden=128, inner=256):
    """A Llama's tensors."""
    tensors = [weight("model.embed_tokens.weight", 64, hidden), weight("model.norm.weight", hidden),
               weight("lm_head.weight", 64, hidden)]
    for layer in range(layers):
        attention, mlp = f"model.layers.{layer}.self_attn", f"model.layers.{layer}.mlp"
        tensors += [weight(f"{attention}.{name}_proj.weight", hidden, hidden) for name in "qkvo"]
        tensors += [weight(f"{mlp}.gate_proj.weight", inner, hidden), weight(f"{mlp}.up_proj.weight", inner, hidden),
                    weight(f"{mlp}.down_proj.weight", hidden, inner)]
    return tensors


def llama_config(**more):
    return {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 128, "num_hidden_layers": 1,
            "num_attention_heads": 4, "torch_dtype": "bfloat16", **more}


def bf16(data):
    """The numbers of BF16 bytes."""
    return [struct.unpack("<f", bytes(2) + data[i:i + 2])[0] for i in range(0, len(data), 2)]


def to_bf16(values):
    """Bytes of numbers, cut off."""
    return b"".join(struct.pack("<f", value)[2:] for value in values)


def f32(data):
    return [value for (value,) in struct.iter_unpack("<f", data)]


def checksum(tensors):
    return {name: (dtype, shape, zlib.crc32(data)) for name, (dtype, shape, data) in tensors.items()}


class QuantizeTest(ProgramTest):
    def hub(self, tensors, config=None, name="hub", **more):
        write_checkpoint(self.path(name), config or llama_config(), tensors, **more)
        return self.path(name)

    def quantize(self, *args, model="hub", out="out", recipe=WEIGHT_ONLY):
        return run("quantize", self.path(model), "-o", self.path(out), "--recipe", recipe, *args)

    def quantized(self, *args, out="out", **more):
        self.assert_done(self.quantize(*args, out=out, **more))
        return read_checkpoint(self.path(out))

    def calibration(self, amax, name="amax.safetensors"):
        write(self.path(name), safetensors([(key, "F32", [], struct.pack("<f", value)) for key, value in amax.items()]))
        return self.path(name)
