"""vLLM on a machine without a GPU: its own config parsing, model class and weight loading.

Stubbed is the choice of kernels alone: where no kernel of the CPU build serves a format, a kernel that does nothing
takes its place, since what is asked here is whether weights arrive and not how they are multiplied.
"""
import importlib
import logging
import os

os.environ.update(VLLM_CPU_KVCACHE_SPACE="1", HF_HUB_OFFLINE="1", VLLM_NO_USAGE_STATS="1", VLLM_LOGGING_LEVEL="WARNING",
                  VLLM_CPU_OMP_THREADS_BIND="nobind", VLLM_ENABLE_V1_MULTIPROCESSING="0", VLLM_USE_DEEP_GEMM="0")

import torch
import torchvision_operators  # noqa: F401
from vllm.config import set_current_vllm_config
from vllm.distributed import init_distributed_environment, initialize_model_parallel
from vllm.engine.arg_utils import EngineArgs
from vllm.model_executor.model_loader import get_model_loader
from vllm.model_executor.model_loader.utils import initialize_model
from vllm.model_executor.models import registry
from vllm.utils.torch_utils import set_default_torch_dtype

import tracking
from tracking import Tracker, layer_methods

NAME = "vllm"
QUANTIZATION = "vllm.model_executor.layers.quantization."
stubbed = set()


class NoKernel:
    """In the place of a kernel that this machine lacks."""
    supports_pre_processed_weights = False

    def process_weights_after_loading(self, layer):
        pass

    def input_quant_key(self):
        return None


def _fall_back(module, name, substitute):
    module = importlib.import_module(module)
    original = getattr(module, name)

    def choose(*args, **kwargs):
        try:
            return original(*args, **kwargs)
        except Exception as error:  # whatever the choice says of this machine
            stubbed.add(f"{name}: {type(error).__name__} {error}"[:160])
            return substitute()

    setattr(module, name, choose)


def _stub_kernels():
    from vllm.model_executor.layers.fused_moe.oracle.fp8 import Fp8MoeBackend
    from vllm.model_executor.layers.fused_moe.oracle.mxfp8 import select_mxfp8_moe_backend  # noqa: F401
    from vllm.model_executor.layers.fused_moe.oracle.nvfp4 import NvFp4MoeBackend
    from vllm.model_executor.layers.fused_moe.oracle.unquantized import UnquantizedMoeBackend
    modelopt = QUANTIZATION + "modelopt"
    _fall_back(modelopt, "select_linear_kernel", NoKernel)
    _fall_back(modelopt, "expose_input_quant_key", lambda: None)
    _fall_back(modelopt, "select_nvfp4_moe_backend", lambda: (NvFp4MoeBackend.MARLIN, None))
    _fall_back(modelopt, "select_fp8_moe_backend", lambda: (Fp8MoeBackend.TRITON, None))
    _fall_back(modelopt, "select_mxfp8_moe_backend", lambda: (Fp8MoeBackend.MARLIN, None))
    _fall_back(QUANTIZATION + "fp8", "init_fp8_linear_kernel", NoKernel)
    _fall_back(QUANTIZATION + "fp8", "select_fp8_moe_backend", lambda: (Fp8MoeBackend.TRITON, None))
    _fall_back("vllm.model_executor.layers.fused_moe.unquantized_fused_moe_method", "select_unquantized_moe_backend",
               lambda: (list(UnquantizedMoeBackend)[0], None))


_stub_kernels()
# vLLM looks into a model class in a process of its own, which would not know torchvision_operators.
registry._run_in_subprocess = lambda function: function()


class _Warnings(logging.Handler):
    def __init__(self):
        super().__init__(logging.WARNING)
        self.messages = []

    def emit(self, record):
        self.messages.append(record.getMessage())


def _unequal_scales(model):
    """Layers of which the engine takes one global scale for parts with several: it warns, where its logging lets it."""
    found = []
    for name, layer in model.named_modules():
        linear, experts = getattr(layer, "weight_scale_2", None), getattr(layer, "w13_weight_scale_2", None)
        if linear is not None and torch.unique(linear).numel() > 1:
            found.append(f"{name}: one weight_scale_2 is taken for several that differ")
        if experts is not None and experts.dim() == 2 and not torch.allclose(experts[:, 0], experts[:, -1]):
            found.append(f"{name}: w1's weight_scale_2 is taken for w3, whose own differs")
    return found


def _process(model):
    """What the engine does once everything is loaded, layer by layer. It compares scales there; the kernels' own part
    fails where there is none, which says nothing of the checkpoint."""
    for layer in model.modules():
        method = getattr(layer, "quant_method", None)
        if method is not None:
            try:
                method.process_weights_after_loading(layer)
            except Exception as error:
                stubbed.add(f"{type(method).__name__}: {type(error).__name__} {error}"[:160])


def ignored(model):
    """Activation scales of layers that quantize none."""
    names = []
    for name, layer in model.named_modules():
        method = getattr(layer, "quant_method", None)
        spec = getattr(method, "spec", None)
        if (spec is not None and spec.activation is None) or getattr(method, "use_a16", False):
            names += [f"{name}.{leaf}" for leaf in ("input_scale", "w13_input_scale", "w2_input_scale")]
    return names


def version():
    return importlib.import_module("importlib.metadata").version("vllm_cpu")


def recording_config():
    """A quantization config that quantizes nothing and keeps what it was asked: (layer, prefix, kind)."""
    from vllm.model_executor.layers.attention import Attention, MLAAttention
    from vllm.model_executor.layers.fused_moe import RoutedExperts
    from vllm.model_executor.layers.linear import LinearBase, UnquantizedLinearMethod
    from vllm.model_executor.layers.quantization.base_config import QuantizationConfig
    from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead, VocabParallelEmbedding
    kinds = ((LinearBase, "linear"), (ParallelLMHead, "linear"), (VocabParallelEmbedding, "embedding"),
             (RoutedExperts, "experts"), ((Attention, MLAAttention), "attention"))

    class Recording(QuantizationConfig):
        def __init__(self):
            super().__init__()
            self.layers = []
            self.mapper = None

        def get_quant_method(self, layer, prefix):
            kind = next((kind for cls, kind in kinds if isinstance(layer, cls)), "other")
            self.layers.append((layer, prefix, kind))
            return UnquantizedLinearMethod() if kind == "linear" else None

        def apply_vllm_mapper(self, hf_to_vllm_mapper):
            self.mapper = hf_to_vllm_mapper

        get_name = classmethod(lambda cls: "recording")
        get_supported_act_dtypes = lambda self: [torch.bfloat16]
        get_min_capability = classmethod(lambda cls: 0)
        get_config_filenames = staticmethod(lambda: [])
        from_config = classmethod(lambda cls, config: cls())

    return Recording()


def mapping_of(recording):
    """How the engine renames a hub's module references, None where it does not, and the parts of its fused modules."""
    mapper = recording.mapper and {
        field: dict(getattr(recording.mapper, f"orig_to_new_{field}", {})) for field in ("substr", "prefix", "suffix")}
    return {"mapper": mapper, "packed": dict(recording.packed_modules_mapping)}


def _engine_config(folder):
    return EngineArgs(model=folder, enforce_eager=True, skip_tokenizer_init=True, max_model_len=128, dtype="bfloat16",
                      max_num_seqs=2).create_engine_config()


def _build(config, folder, recording):
    init_distributed_environment(1, 0, f"file://{tracking.rendezvous(os.getpid())}", 0, "gloo")
    initialize_model_parallel(1, 1)
    if recording is not None:
        config.quant_config = recording
    with set_default_torch_dtype(torch.bfloat16):
        model = initialize_model(config)
    if recording is not None:
        recording.model = model
    return model


def build(folder, recording=None):
    """The engine's model for the checkpoint's config, without weights. Raises what the engine raises."""
    config = _engine_config(folder)
    with set_current_vllm_config(config):
        return _build(config, folder, recording)


def load(folder, recording=None):
    """Loads the checkpoint as the engine does and says what became of its tensors. Raises what the engine raises.
    `recording`: a recording_config that takes the place of the checkpoint's own."""
    warnings = _Warnings()
    logging.getLogger("vllm").addHandler(warnings)
    config = _engine_config(folder)
    with set_current_vllm_config(config):
        model = _build(config, folder, recording)
        loader = get_model_loader(config.load_config)
        tracker = Tracker(model)
        with set_default_torch_dtype(torch.bfloat16), tracker:
            loaded = model.load_weights(tracker.checkpoint_tensors(loader.get_all_weights(config.model_config, model)))
        report = tracker.report()
        report["class"] = type(model).__name__
        report["quantization"] = config.model_config.quantization
        report["methods"] = layer_methods(model)
        report["ignored"] = ignored(model)
        try:
            loader.track_weights_loading(model, loaded, quantized=config.model_config.quantization is not None)
        except ValueError as error:
            report["strict"] = str(error)
        unequal = _unequal_scales(model)
        _process(model)
    report["warnings"] = [message for message in warnings.messages if "scale" in message] + unequal
    report["stubbed"] = sorted(stubbed)
    return report
