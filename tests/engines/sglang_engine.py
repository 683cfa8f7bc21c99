"""SGLang on a machine without a GPU: its own config parsing, model class and weight loading.

Stubbed are the packages of kernels, which exist for CUDA only; the platform, which says it is a Blackwell GPU where
ModelOpt's formats ask; and threads, since a dispatch mode sees its own thread alone.
"""
import concurrent.futures
import importlib
import importlib.machinery
import logging
import os
import sys
import types
from unittest.mock import MagicMock

os.environ.update(SGLANG_USE_CPU_ENGINE="1", HF_HUB_OFFLINE="1", CUDA_VISIBLE_DEVICES="")

KERNEL_PACKAGES = ("sgl_kernel", "flashinfer", "torchao", "deep_gemm")


class _Kernels(types.ModuleType):
    __path__ = []
    __version__ = "9.9.9"

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return MagicMock(name=name)


class _KernelFinder:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in KERNEL_PACKAGES:
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec):
        return _Kernels(spec.name)

    def exec_module(self, module):
        pass


sys.meta_path.append(_KernelFinder())

import torch
import torchvision_operators  # noqa: F401
import sglang.srt.layers.quantization.modelopt_quant as modelopt_quant
import sglang.srt.model_loader.loader as loading
from sglang.srt.configs.load_config import LoadConfig
from sglang.srt.configs.model_config import ModelConfig
from sglang.srt.distributed import init_distributed_environment, initialize_model_parallel
from sglang.srt.layers.dp_attention import initialize_dp_attention
from sglang.srt.layers.moe.utils import initialize_moe_config
from sglang.srt.model_loader.utils import set_default_torch_dtype
from sglang.srt.models.registry import ModelRegistry  # noqa: F401, all model classes once and not in every load
from sglang.srt.runtime_context import SpawnRanks, publish
from sglang.srt.server_args import ServerArgs

import tracking
from tracking import Tracker, layer_methods

NAME = "sglang"
LARGEST_TAKEN = ("ModelOptFp4LinearMethod", "ModelOptNvFp4A16LinearMethod")


class _SameThread:
    """A pool of threads that has none."""

    def __init__(self, *args, **kwargs):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return False

    def shutdown(self, *args, **kwargs):
        pass

    def submit(self, function, *args, **kwargs):
        future = concurrent.futures.Future()
        try:
            future.set_result(function(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future

    def map(self, function, *lists):
        return [function(*items) for items in zip(*lists)]


concurrent.futures.ThreadPoolExecutor = _SameThread
modelopt_quant.get_platform = lambda: MagicMock(is_blackwell=True, is_sm120=False, is_sm100=True)


class _Warnings(logging.Handler):
    def __init__(self):
        super().__init__(logging.WARNING)
        self.messages = []

    def emit(self, record):
        self.messages.append(record.getMessage())


def ignored(model):
    """Activation scales of layers that quantize none."""
    names = []
    for name, layer in model.named_modules():
        method = getattr(layer, "quant_method", None)
        if "A16" in type(method).__name__ or getattr(getattr(method, "quant_config", None), "is_w4a16", False):
            names += [f"{name}.{leaf}" for leaf in ("input_scale", "w13_input_scale", "w2_input_scale")]
    return names


def _served_by_partner(name, tensors):
    """SGLang's DeepSeek classes take the scalars of q_a_proj for the layer in which kv_a_proj_with_mqa lies as well."""
    partner = name.replace("kv_a_proj_with_mqa", "q_a_proj")
    return partner != name and partner in tensors and tensors[name].dim() == 0 and bool(tensors[name] == tensors[partner])


def version():
    return importlib.import_module("importlib.metadata").version("sglang")


def recording_config():
    """A quantization config that quantizes nothing and keeps what it was asked: (layer, prefix, kind)."""
    from sglang.srt.layers.linear import LinearBase
    from sglang.srt.layers.moe.fused_moe_triton import FusedMoE
    from sglang.srt.layers.quantization.base_config import QuantizationConfig
    from sglang.srt.layers.quantization.unquant import UnquantizedLinearMethod
    from sglang.srt.layers.radix_attention import RadixAttention
    from sglang.srt.layers.vocab_parallel_embedding import ParallelLMHead, VocabParallelEmbedding
    kinds = ((LinearBase, "linear"), (ParallelLMHead, "linear"), (VocabParallelEmbedding, "embedding"),
             (FusedMoE, "experts"), (RadixAttention, "attention"))

    class Recording(QuantizationConfig):
        def __init__(self):
            super().__init__()
            self.layers = []
            self.mapper = None

        def apply_weight_name_mapper(self, hf_to_sglang_mapper):
            self.mapper = hf_to_sglang_mapper

        def get_quant_method(self, layer, prefix):
            kind = next((kind for cls, kind in kinds if isinstance(layer, cls)), "other")
            self.layers.append((layer, prefix, kind))
            return UnquantizedLinearMethod() if kind == "linear" else None

        get_name = classmethod(lambda cls: "recording")
        get_supported_act_dtypes = classmethod(lambda cls: [torch.bfloat16])
        get_min_capability = classmethod(lambda cls: 0)
        get_config_filenames = staticmethod(lambda: [])
        from_config = classmethod(lambda cls, config: cls())
        get_scaled_act_names = lambda self: []

    return Recording()


def mapping_of(recording):
    """How the engine renames a hub's module references, None where it does not, and the parts of its fused modules."""
    mapper = recording.mapper and {
        field: dict(getattr(recording.mapper, f"orig_to_new_{field}", {})) for field in ("substr", "prefix", "suffix")}
    return {"mapper": mapper, "packed": dict(getattr(type(recording.model), "packed_modules_mapping", {}))}


def _build(folder, recording):
    args = ServerArgs(model_path=folder, device="cpu", skip_tokenizer_init=True, attention_backend="torch_native",
                      disable_overlap_schedule=True, dtype="bfloat16", mem_fraction_static=0.5)
    publish(args, role="scheduler", ranks=SpawnRanks(world_rank=0))
    config = ModelConfig.from_server_args(args)
    init_distributed_environment(world_size=1, rank=0, local_rank=0, backend="gloo",
                                 distributed_init_method=f"file://{tracking.rendezvous(os.getpid())}")
    initialize_model_parallel()
    initialize_dp_attention(args)
    initialize_moe_config()
    how = LoadConfig()
    quantization = loading._get_quantization_config(config, how)
    with set_default_torch_dtype(torch.bfloat16):
        model = loading._initialize_model(config, how, recording or quantization)
    if recording is not None:
        recording.model = model
    return config, loading.DefaultModelLoader(how), model


def build(folder, recording=None):
    """The engine's model for the checkpoint's config, without weights. Raises what the engine raises."""
    return _build(folder, recording)[2]


def load(folder, recording=None):
    """Loads the checkpoint as the engine does and says what became of its tensors. Raises what the engine raises.
    `recording`: a recording_config that takes the place of the checkpoint's own."""
    warnings = _Warnings()
    logging.getLogger().addHandler(warnings)
    config, loader, model = _build(folder, recording)
    tracker = Tracker(model)
    with set_default_torch_dtype(torch.bfloat16), tracker:
        model.load_weights(tracker.checkpoint_tensors(loader._get_all_weights(config, model)))
    report = tracker.report()
    report["unused"] = [name for name in report["unused"] if not _served_by_partner(name, tracker.tensors)]
    report["class"] = type(model).__name__
    report["quantization"] = config.quantization
    report["methods"] = layer_methods(model)
    report["ignored"] = ignored(model)
    report["warnings"] = [message for message in warnings.messages if "must match" in message]
    # The kernels' preparation takes the largest of a fused linear's scales without a word.
    for name, layer in model.named_modules():
        scale = getattr(layer, "weight_scale_2", None)
        if type(getattr(layer, "quant_method", None)).__name__ in LARGEST_TAKEN and torch.unique(scale).numel() > 1:
            report["warnings"].append(f"{name}: one weight_scale_2 is taken for several that differ")
    report["stubbed"] = list(KERNEL_PACKAGES)
    return report
