#!/usr/bin/env python3
"""Holds revert_state_dict against transformers' own reversal, for every class with a conversion mapping.

Float and NVFP4-like, by the model's config, by the live model and by reference; every tensor of the result lies in the memory
of the input, but for what has to be copied. Then models of the test's own: conversions that a user registered, those that
loading used, and some that nobody can undo.

    state_dict_test.py [--match REGEX] [-v]      exit status 1 where something differs
"""
import argparse
import json
import sys
import tempfile
import unittest
import warnings
from concurrent.futures import ThreadPoolExecutor

from oracle import Tally, by_reference, cases, difference, gave_up, unquantized  # first: it keeps transformers offline
import torch
import transformers
from torch import nn
from transformers import (
    LlamaConfig, LlamaForCausalLM, MixtralConfig, MixtralForCausalLM, PreTrainedConfig, PreTrainedModel)
from transformers.conversion_mapping import register_checkpoint_conversion_mapping
from transformers.core_model_loading import (
    Chunk, Concatenate, ConversionOps, MergeModulelist, SplitModulelist, Transpose, WeightConverter, WeightRenaming,
    revert_weight_conversion)

import quantport
from quantport import modelopt
from quantport.state_dict import revert_state_dict

VERSION = transformers.__version__
VIEWS = (Chunk, SplitModulelist, Transpose)  # what saving can do to a tensor without moving its elements


def held(tensors, config, expected, **options):
    """None where the result is what was expected and lies where it should; else what is wrong."""
    before = dict(tensors)
    try:
        got = revert_state_dict(tensors, config, on_unsupported="fail", by_rules=True, **options)
    except quantport.QuantportError as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0]}"
    if list(before) != list(tensors) or any(before[name] is not tensors[name] for name in before):
        return "the input was changed"
    return difference(got, expected)


def storage(tensor):
    return tensor.untyped_storage().data_ptr()


def moved(case, tensors, result):
    """None where all memory of the result is the input's, but for scalars that exist several times; else what is not."""
    inputs = {storage(t) for t in tensors.values()}
    objects = {id(t) for t in tensors.values()}
    reversed_ = [conversion.reverse_transform() for conversion in case.model._weight_conversions]
    converters = [r for r in reversed_ if isinstance(r, WeightConverter)]
    if any(not isinstance(op, VIEWS) for r in converters for op in r.operations):
        return None  # saving joins tensors, or changes the order of rows
    for name, tensor in result.items():
        if storage(tensor) not in inputs and tensor.numel() > 1:
            return f"{name} was copied"
        if not converters and id(tensor) not in objects:
            return f"{name} is another object"
    copies = [storage(t) for t in result.values() if t.numel() == 1]
    if len(set(copies)) < len([n for n, t in result.items() if t.numel() == 1 and storage(t) not in inputs]):
        return "scalars share memory"
    return None


def check(case):
    inputs = case.float_inputs()
    try:
        expected = case.revert(inputs)
    except Exception as error:
        return {"float": gave_up(error)}
    results = {"float": held(inputs, case.config, expected, transformers_version=VERSION),
               "float, live model": held(inputs, case.model, expected),
               "float, reference": by_reference(case, _or_error(inputs, case.config, expected), expected, expected, inputs)}
    results["float, created model"] = created(case, inputs)
    if results["float"] is None:
        results["float, memory"] = moved(case, inputs, revert_state_dict(inputs, case.model, by_rules=True))
    try:
        quantized = case.quantized()
    except Exception as error:
        return results | {"quantized": gave_up(error)}
    if quantized:
        export, hub = quantized
        results["quantized"] = held(export, case.config, hub, transformers_version=VERSION)
        results["quantized, live model"] = held(export, case.model, hub)
        results["quantized, reference"] = by_reference(
            case, _or_error(export, case.config, unquantized(hub)), hub, expected, inputs)
        if results["quantized"] is None:
            results["quantized, memory"] = moved(case, export, revert_state_dict(export, case.model, by_rules=True))
            meta = {name: t.to("meta") for name, t in export.items()}
            on_meta = revert_state_dict(meta, case.model, by_rules=True)
            same = [(n, t.dtype, t.shape) for n, t in on_meta.items()] == [
                (n, t.dtype, t.shape) for n, t in revert_state_dict(export, case.model, by_rules=True).items()]
            results["quantized, on meta"] = None if same and all(t.is_meta for t in on_meta.values()) else "other tensors"
    return results


def created(case, inputs):
    """Of a model that was not loaded: neither knows what loading would have used."""
    attached, case.model._weight_conversions = case.model._weight_conversions, None
    try:
        return held(inputs, case.model, case.revert(inputs))
    except Exception as error:
        return gave_up(error)
    finally:
        case.model._weight_conversions = attached


def _or_error(tensors, config, hub):
    try:
        return revert_state_dict(tensors, config, reference=hub, on_unsupported="fail", transformers_version=VERSION)
    except quantport.QuantportError as error:
        return f"{type(error).__name__}: {error}"


# ---- models of the test's own --------------------------------------------------------------------------------------------


class MadeUpConfig(PreTrainedConfig):
    model_type = "quantport_made_up"


class MadeUpModel(PreTrainedModel):
    config_class = MadeUpConfig

    def __init__(self, config):
        super().__init__(config)
        self.tower = nn.Module()
        self.tower.qkv = nn.Linear(8, 24, bias=False)
        self.experts = nn.Module()
        self.experts.gate_up_proj = nn.Parameter(torch.randn(2, 16, 8))
        self.post_init()


class Doubled(ConversionOps):
    def convert(self, input_dict, **kwargs):
        return input_dict

    @property
    def reverse_op(self):
        return self


def register(*conversions):
    register_checkpoint_conversion_mapping("quantport_made_up", list(conversions), overwrite=True)


SMALL = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 32,
         "num_key_value_heads": 2}
EXPERTS = WeightConverter(
    ["experts.*.w1.weight", "experts.*.w3.weight"], ["experts.gate_up_proj"], [MergeModulelist(dim=0), Concatenate(dim=1)])


class LiveModelTest(unittest.TestCase):
    def setUp(self):
        register(WeightRenaming("^body", "tower"), EXPERTS,
                 WeightConverter(["q.weight", "k.weight", "v.weight"], "qkv.weight", [Concatenate(dim=0)]))
        self.model = MadeUpModel(MadeUpConfig())
        self.tensors = {k: v.detach().clone() for k, v in self.model.state_dict().items()}

    def test_conversions_that_a_user_registered(self):
        expected = revert_weight_conversion(self.model, dict(self.tensors))
        self.assertEqual(set(expected), {"body.q.weight", "body.k.weight", "body.v.weight", "experts.0.w1.weight",
                                         "experts.1.w1.weight", "experts.0.w3.weight", "experts.1.w3.weight"})
        self.assertIsNone(held(self.tensors, self.model, expected))

    def test_conversions_that_are_attached_win_over_those_registered(self):
        self.model._weight_conversions = [WeightRenaming("^other", "tower")]
        expected = revert_weight_conversion(self.model, dict(self.tensors))
        self.assertIn("other.qkv.weight", expected)
        self.assertIsNone(held(self.tensors, self.model, expected))

    def test_only_what_loading_used_is_undone(self):
        config = MixtralConfig(**SMALL, num_local_experts=2)
        with tempfile.TemporaryDirectory() as folder:
            MixtralForCausalLM(config).save_pretrained(folder)
            loaded = MixtralForCausalLM.from_pretrained(folder)
            MixtralForCausalLM(config).save_pretrained(folder, save_original_format=False)
            new_names = MixtralForCausalLM.from_pretrained(folder)
        for model in (loaded, new_names):
            tensors = model.state_dict()
            self.assertIsNone(held(tensors, model, revert_weight_conversion(model, dict(tensors))))
        self.assertIn("model.layers.0.block_sparse_moe.experts.1.w2.weight", revert_state_dict(loaded.state_dict(), loaded))
        self.assertIn("model.layers.0.mlp.experts.down_proj", revert_state_dict(new_names.state_dict(), new_names))

    def test_an_operation_that_nobody_knows(self):
        register(WeightConverter("a.weight", "tower.qkv.weight", [Doubled()]))
        with self.assertRaisesRegex(quantport.InvalidMappingError, r"Doubled in the conversion of a.weight.*mapping file"):
            revert_state_dict(self.tensors, self.model)

    def test_a_conversion_of_an_unknown_type(self):
        class Renaming(WeightRenaming):
            pass

        for unknown in (Renaming("a", "tower"), object()):
            self.model._weight_conversions = [unknown]
            with self.assertRaisesRegex(quantport.InvalidMappingError, "does not know how to undo this conversion"):
                revert_state_dict(self.tensors, self.model)

    def test_parameters_give_views_without_gradients(self):
        parameters = dict(self.model.named_parameters())
        result = revert_state_dict(parameters, self.model)
        for name, tensor in result.items():
            self.assertFalse(tensor.requires_grad, name)
            self.assertIn(storage(tensor), {storage(p) for p in parameters.values()})

    def test_a_slice_of_what_lies_transposed(self):
        base = torch.randn(8, 24)
        self.tensors["tower.qkv.weight"] = base.t()
        result = revert_state_dict(self.tensors, self.model)
        self.assertTrue(torch.equal(result["body.k.weight"], base.t()[8:16]))
        self.assertEqual(storage(result["body.k.weight"]), storage(base))

    def test_subclasses(self):
        class Tagged(torch.Tensor):
            pass

        self.tensors = {"tower.qkv.weight": torch.randn(24, 8).as_subclass(Tagged), "emb.weight": torch.randn(2).as_subclass(Tagged)}
        result = revert_state_dict(self.tensors, self.model)
        self.assertIs(result["emb.weight"], self.tensors["emb.weight"])
        self.assertIsInstance(result["body.k.weight"], Tagged)
        self.assertEqual(storage(result["body.k.weight"]), storage(self.tensors["tower.qkv.weight"]))

    def test_a_sparse_tensor_is_renamed_but_not_cut(self):
        sparse = torch.eye(24).to_sparse()
        self.assertIs(revert_state_dict({"tower.emb.weight": sparse}, self.model)["body.emb.weight"], sparse)
        with self.assertRaisesRegex(TypeError, r"shape \[24, 24\] is to be cut.*to_dense"):
            revert_state_dict({"tower.qkv.weight": sparse}, self.model)

    def test_tied_weights_keep_sharing(self):
        self.tensors["head.weight"] = self.tensors["emb.weight"] = torch.randn(4, 4)
        result = revert_state_dict(self.tensors, self.model)
        self.assertIs(result["head.weight"], result["emb.weight"])

    def test_a_weight_and_a_slice_of_it(self):
        self.tensors["tower.q.weight"] = self.tensors["tower.qkv.weight"][:8]
        with self.assertRaisesRegex(ValueError, r"tower.q.weight.*lies in the memory of.*tower.qkv.weight.*clone"):
            revert_state_dict(self.tensors, self.model)

    def test_mixed_devices_that_become_one(self):
        register(WeightConverter("qkv.weight", ["q.weight", "k.weight", "v.weight"], [Chunk(dim=0)]))
        tensors = {f"tower.{x}.weight": torch.randn(8, 8) for x in "qkv"}
        tensors["tower.k.weight"] = tensors["tower.k.weight"].to("meta")
        with self.assertRaisesRegex(ValueError, "partly on the meta device"):
            revert_state_dict(tensors, self.model)


class ModelOptNamesTest(unittest.TestCase):
    """The names that ModelOpt's export calls; exports by ModelOpt itself are in patch_test.py."""

    def setUp(self):
        self.model = MixtralForCausalLM(MixtralConfig(**SMALL, num_local_experts=2))

    def test_a_quantized_state_dict(self):
        experts = {f"model.layers.0.mlp.experts.{e}.{x}": None for e in range(2) for x in ("gate_proj", "up_proj", "down_proj")}
        tensors = {}
        for module in experts:
            tensors[f"{module}.weight"] = torch.randint(0, 255, (32, 16), dtype=torch.uint8)
            tensors[f"{module}.weight_scale"] = torch.ones(32, 2).to(torch.float8_e4m3fn)
            tensors[f"{module}.weight_scale_2"] = torch.tensor(1.0)
        result = modelopt.revert_weight_conversion_quant_aware(self.model, tensors)
        self.assertEqual(len(result), 18)
        self.assertIs(result["model.layers.0.block_sparse_moe.experts.1.w3.weight_scale_2"],
                      tensors["model.layers.0.mlp.experts.1.up_proj.weight_scale_2"])

    def test_every_tensor_can_be_written(self):
        # The hub has these transposed.
        self.model._weight_conversions = [WeightConverter("hub.weight", "memory.weight", [Transpose(dim0=0, dim1=1)])]
        result = modelopt.revert_weight_conversion_quant_aware(self.model, {"memory.weight": torch.randn(4, 6)})
        self.assertEqual(result["hub.weight"].shape, (6, 4))
        self.assertTrue(result["hub.weight"].is_contiguous())

    def test_what_can_not_be_reverted_is_an_exception(self):
        container = "model.layers.0.mlp.experts.gate_up_proj"  # 31 rows of gate and up together
        tensors = {container: torch.zeros(2, 31, 16, dtype=torch.uint8), f"{container}_weight_scale_2": torch.ones(2),
                   f"{container}_weight_scale": torch.ones(2, 31, 2).to(torch.float8_e4m3fn)}
        with self.assertRaises(modelopt.QuantConversionUnsupportedError):
            modelopt.revert_weight_conversion_quant_aware(self.model, tensors)

    def test_a_stale_quantization_of_the_config_does_not_matter(self):
        self.model.config.quantization_config = {"quant_method": "fp8", "weight_block_size": [128, 128]}
        result = modelopt.revert_weight_conversion_quant_aware(self.model, self.model.state_dict())
        self.assertIn("model.layers.0.block_sparse_moe.experts.0.w3.weight", result)

    def test_names_of_modules(self):
        mapper = modelopt.build_reverse_name_mapper(self.model)
        for name, hub in {"model.layers.0.mlp.gate": "model.layers.0.block_sparse_moe.gate",
                          "model.layers.0.mlp.gate*": "model.layers.0.block_sparse_moe.gate*",
                          "model.layers.9.mlp.gate": "model.layers.9.block_sparse_moe.gate", "lm_head": "lm_head"}.items():
            self.assertEqual(mapper(name), hub)

    def test_no_mapper_where_names_are_the_same(self):
        self.assertIsNone(modelopt.build_reverse_name_mapper(LlamaForCausalLM(LlamaConfig(**SMALL))))

    def test_configs_are_changed_in_place(self):
        names = {"exclude_modules": ["lm_head", "model.layers.0.mlp.gate"], "quant_algo": "MIXED_PRECISION",
                 "quantized_layers": {"model.layers.0.mlp.gate": {"quant_algo": "NVFP4"}}}
        hub = {"exclude_modules": ["lm_head", "model.layers.0.block_sparse_moe.gate"], "quant_algo": "MIXED_PRECISION",
               "quantized_layers": {"model.layers.0.block_sparse_moe.gate": {"quant_algo": "NVFP4"}}}
        for mapper, want in ((modelopt.build_reverse_name_mapper(self.model), hub), (None, names),
                             (str.upper, {"exclude_modules": ["LM_HEAD", "MODEL.LAYERS.0.MLP.GATE"], "quant_algo": "MIXED_PRECISION",
                                          "quantized_layers": {"MODEL.LAYERS.0.MLP.GATE": {"quant_algo": "NVFP4"}}})):
            quantization = json.loads(json.dumps(names))
            self.assertIsNone(modelopt.revert_quant_config_names(quantization, mapper))
            self.assertEqual(quantization, want)
        modelopt.revert_quant_config_names(None, str.upper)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--match", default="")
    parser.add_argument("-v", action="store_true")
    options = parser.parse_args()
    warnings.simplefilter("ignore", quantport.QuantportWarning)
    load = unittest.defaultTestLoader.loadTestsFromTestCase
    done = unittest.TextTestRunner().run(unittest.TestSuite([load(LiveModelTest), load(ModelOptNamesTest)]))
    tally = Tally(options.v)
    with ThreadPoolExecutor(1) as pool:
        for name, results in pool.map(lambda case: (case.name, check(case)), cases(options.match)):
            tally.add(name, results)
    return tally.failed() or not done.wasSuccessful()


if __name__ == "__main__":
    sys.exit(main())
