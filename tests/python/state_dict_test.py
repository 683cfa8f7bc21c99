"""revert_state_dict on numpy arrays: what it shares, that it does to tensors what revert does to files, and bad input."""
import json
import os
import random
import struct
import unittest
import warnings

import numpy as np
import quantport
from package import PackageTest
from quantport.arrays import place
from quantport.state_dict import revert_state_dict


def converter(sources, targets, *operations):
    return {"type": "WeightConverter", "source_patterns": sources, "target_patterns": targets, "operations": list(operations)}


MAPPING = {
    "format": 1, "library": "private", "version": "1",
    "conversions": {"my_model": [
        {"type": "WeightRenaming", "source_patterns": [r"^transformer\.h\."], "target_patterns": ["model.layers."]},
        converter(["mlp.w_gate.weight", "mlp.w_up.weight"], ["mlp.w_both.weight"], {"op": "Concatenate", "dim": 0}),
        converter(["experts.*.w1.weight", "experts.*.w3.weight"], ["experts.gate_up_proj"],
                  {"op": "MergeModulelist", "dim": 0}, {"op": "Concatenate", "dim": 1}),
        converter(["turned.hub.weight"], ["turned.memory.weight"], {"op": "Transpose", "dim0": 0, "dim1": 1}),
        converter(["rows.hub.weight"], ["rows.memory.weight"], {"op": "Interleave", "dim": 0}),
        converter(["qkv.weight"], ["q.weight", "k.weight", "v.weight"], {"op": "Chunk", "dim": 0})]},
    "classes": {"MyModel": {"model_type": "my_model", "base_model_prefix": "model"}},
}
CONFIG = {"architectures": ["MyModel"], "model_type": "my_model"}
SCALE = {"dtype": np.float32}


def random_array(shape, dtype=np.float16, seed=0):
    return np.random.default_rng(seed).integers(1, 100, shape).astype(dtype)


def int8(module, rows, columns, scale=0.5):
    """A linear in INT8 with one scale, as compressed-tensors stores it."""
    return {f"{module}.weight": random_array((rows, columns), np.int8, rows), f"{module}.weight_scale": np.array([scale], **SCALE)}


def model():
    """A tensor for every conversion of the mapping."""
    return {
        "model.layers.0.norm.weight": random_array(8),
        **int8("model.layers.0.mlp.w_both", 12, 8),
        "experts.gate_up_proj": random_array((3, 8, 4)),
        "turned.memory.weight": random_array((4, 6)),
        "rows.memory.weight": random_array((6, 4)),
        **{f"{x}.weight": random_array((4, 8), seed=i) for i, x in enumerate("qkv")},
    }


def revert(tensors, **options):
    return revert_state_dict(tensors, CONFIG, **{"on_unsupported": "fail", "mapping": MAPPING, **options})


CODES = {"float16": "F16", "float32": "F32", "int8": "I8", "int32": "I32", "int64": "I64", "uint8": "U8"}
TYPES = {code: name for name, code in CODES.items()}


def write_checkpoint(folder, tensors, config):
    os.makedirs(folder)
    header, data = {}, b""
    for name, tensor in tensors.items():
        body = tensor.tobytes()
        header[name] = {"dtype": CODES[tensor.dtype.name], "shape": tensor.shape, "data_offsets": [len(data), len(data) + len(body)]}
        data += body
    text = json.dumps(header).encode()
    with open(f"{folder}/model.safetensors", "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + data)
    with open(f"{folder}/config.json", "w", encoding="utf-8") as f:
        json.dump(config, f)


def read_checkpoint(folder):
    with open(f"{folder}/model.safetensors", "rb") as f:
        content = f.read()
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8:8 + length])
    header.pop("__metadata__", None)
    return {name: np.frombuffer(content[8 + length:][slice(*t["data_offsets"])], TYPES[t["dtype"]]).reshape(t["shape"])
            for name, t in header.items()}


class StateDictTest(PackageTest):
    def assert_equal(self, got, want):
        self.assertEqual(set(got), set(want))
        for name, tensor in want.items():
            self.assertEqual((got[name].dtype, got[name].shape), (tensor.dtype, tensor.shape), name)
            np.testing.assert_array_equal(got[name], tensor, err_msg=name)

    def assert_like_files(self, tensors, config=CONFIG, mapping=MAPPING, **options):
        """Reverted in memory and as files, the result and what the reports say of it are the same."""
        write_checkpoint(self.path("in"), tensors, config)
        with open(self.path("mapping.json"), "w", encoding="utf-8") as f:
            json.dump(mapping, f)
        report = quantport.revert(self.path("in"), self.path("out"), mapping_file=self.path("mapping.json"), **options)
        result, in_memory = revert_state_dict(tensors, config, mapping=mapping, return_report=True, on_unsupported="fail", **options)
        self.assert_equal(result, read_checkpoint(self.path("out")))
        for what in ("architecture", "mapping", "input_tensors", "output_tensors", "renamed", "cut", "rescaled", "ambiguous"):
            self.assertEqual(getattr(in_memory, what), getattr(report, what), what)
        return result


class SharingTest(StateDictTest):
    def test_every_conversion_is_that_of_files(self):
        self.assert_like_files(model())

    def test_what_is_renamed_is_the_same_object(self):
        tensors = model()
        result = revert(tensors)
        self.assertIs(result["transformer.h.0.norm.weight"], tensors["model.layers.0.norm.weight"])

    def test_the_input_is_not_changed(self):
        tensors = model()
        before, content = dict(tensors), {name: tensor.tobytes() for name, tensor in tensors.items()}
        revert(tensors)
        self.assertEqual(list(tensors), list(before))
        self.assertTrue(all(tensors[name] is before[name] for name in before))
        self.assertEqual({name: tensor.tobytes() for name, tensor in tensors.items()}, content)

    def test_parts_are_views(self):
        tensors = model()
        result = revert(tensors)
        for name, source in {"transformer.h.0.mlp.w_gate.weight": "model.layers.0.mlp.w_both.weight",
                             "transformer.h.0.mlp.w_up.weight": "model.layers.0.mlp.w_both.weight",
                             "experts.0.w1.weight": "experts.gate_up_proj", "experts.2.w3.weight": "experts.gate_up_proj",
                             "turned.hub.weight": "turned.memory.weight"}.items():
            self.assertTrue(np.shares_memory(result[name], tensors[source]), name)
        tensors["experts.gate_up_proj"][1, 5, 2] = 7000
        self.assertEqual(result["experts.1.w3.weight"][1, 2], 7000)

    def test_scalars_that_several_get_are_copied_and_others_are_not(self):
        tensors = model()
        result = revert(tensors)
        first, second = (result[f"transformer.h.0.mlp.{x}.weight_scale"] for x in ("w_gate", "w_up"))
        self.assertIs(first, tensors["model.layers.0.mlp.w_both.weight_scale"])
        self.assertFalse(np.shares_memory(first, second))
        np.testing.assert_array_equal(first, second)

    def test_scalars_of_stacked_experts(self):
        tensors = {"experts.gate_up_proj": random_array((3, 8, 4), np.int8),
                   "experts.gate_up_proj_weight_scale": np.arange(3, **SCALE)}
        result = revert(tensors)
        for expert in range(3):
            for linear in ("w1", "w3"):
                scale = result[f"experts.{expert}.{linear}.weight_scale"]
                self.assertEqual((scale.shape, float(scale)), ((), expert))
        scales = [result[f"experts.{e}.{x}.weight_scale"] for e in range(3) for x in ("w1", "w3")]
        self.assertFalse(any(np.shares_memory(a, b) for i, a in enumerate(scales) for b in scales[:i]))
        self.assertEqual(sum(np.shares_memory(scale, tensors["experts.gate_up_proj_weight_scale"]) for scale in scales), 3)

    def test_results_stand_where_the_first_of_their_tensors_stood(self):
        names = list(revert(dict(reversed(model().items()))))
        self.assertEqual(names, [
            "qkv.weight", "rows.hub.weight", "turned.hub.weight",
            *(f"experts.{e}.w1.weight" for e in range(3)), *(f"experts.{e}.w3.weight" for e in range(3)),
            "transformer.h.0.mlp.w_gate.weight_scale", "transformer.h.0.mlp.w_up.weight_scale",
            "transformer.h.0.mlp.w_gate.weight", "transformer.h.0.mlp.w_up.weight", "transformer.h.0.norm.weight"])

    def test_arrays_that_are_not_dense_give_the_same_and_share_where_strides_can_say_it(self):
        dense = revert(model())
        forms = {"columns first": np.asfortranarray, "every second row": lambda a: np.repeat(a, 2, axis=0)[::2],
                 "upside down": lambda a: np.ascontiguousarray(a[::-1])[::-1],
                 "a part of columns": lambda a: np.concatenate([a, a], axis=-1)[..., :a.shape[-1]]}
        for form, make in forms.items():
            with self.subTest(form):
                tensors = {name: make(a) if a.ndim > 1 else a for name, a in model().items()}
                result = revert(tensors)
                self.assert_equal(result, dense)
                self.assertTrue(np.shares_memory(result["experts.1.w3.weight"], tensors["experts.gate_up_proj"]))
                self.assertTrue(np.shares_memory(result["turned.hub.weight"], tensors["turned.memory.weight"]))

    def test_tied_weights_keep_sharing(self):
        table = random_array((6, 4))
        result = revert({"lm_head.weight": table, "embed.weight": table})
        self.assertIs(result["lm_head.weight"], result["embed.weight"])
        self.assertIs(result["lm_head.weight"], table)

    def test_neighbours_in_one_memory_are_fine(self):
        both = random_array((8, 4))
        result = revert({"a.weight": both[:4], "b.weight": both[4:]})
        self.assertEqual(list(result), ["a.weight", "b.weight"])

    def test_empty(self):
        self.assertEqual(revert({}), {})
        self.assertEqual(revert({"experts.gate_up_proj": np.zeros((2, 8, 0), np.float16)})["experts.1.w3.weight"].shape, (4, 0))

    def test_a_million_times_the_bytes_take_no_longer(self):
        shape = (256, 1 << 22, 1 << 10)  # 2 TB, of one element
        result = revert({"experts.gate_up_proj": np.broadcast_to(np.float16(1), shape)})
        self.assertEqual(len(result), 512)
        self.assertEqual(result["experts.255.w3.weight"].shape, (1 << 21, 1 << 10))

    @unittest.skipUnless(__import__("importlib.util").util.find_spec("ml_dtypes"), "needs ml_dtypes")
    def test_numbers_that_numpy_does_not_have(self):
        import ml_dtypes
        tensors = {"model.layers.0.mlp.w_both.weight": random_array((4, 16), np.uint8),
                   "model.layers.0.mlp.w_both.weight_scale": random_array((4, 2), np.uint8).view(ml_dtypes.float8_e4m3fn),
                   "model.layers.0.mlp.w_both.weight_scale_2": np.array(2, np.float32),
                   "model.layers.0.norm.weight": random_array(4).astype(ml_dtypes.bfloat16)}
        result = revert(tensors)
        scale = result["transformer.h.0.mlp.w_up.weight_scale"]
        self.assertEqual(scale.dtype, ml_dtypes.float8_e4m3fn)
        self.assertTrue(np.shares_memory(scale, tensors["model.layers.0.mlp.w_both.weight_scale"]))
        np.testing.assert_array_equal(scale.view(np.uint8), tensors["model.layers.0.mlp.w_both.weight_scale"][2:].view(np.uint8))


class SharedScalesTest(StateDictTest):
    @staticmethod
    def parts(*scales):
        return {name: tensor for x, scale in zip("qkv", scales) for name, tensor in int8(x, 4, 8, scale).items()}

    def test_equal_scales_become_one(self):
        self.assert_like_files(self.parts(0.5, 0.5, 0.5))

    def test_different_scales_keep_all_names_and_warn(self):
        tensors = self.parts(0.5, 0.5, 0.25) | {"model.layers.0.norm.weight": random_array(8)}
        with self.assertWarnsRegex(quantport.QuantportWarning, "names could not be reverted"):
            result, report = revert(tensors, on_unsupported="keep-names", return_report=True)
        self.assertEqual(list(result), list(tensors))
        self.assertTrue(all(result[name] is tensors[name] for name in tensors))
        self.assertEqual((report.outcome, report.renamed), ("kept_names", 0))
        self.assertIn("its weight_scale differs from that of q.weight_scale", str(report.unsupported[0]))

    def test_different_scales_are_an_error_where_asked_for(self):
        with self.assertRaisesRegex(quantport.QuantConversionUnsupportedError, "v.weight_scale: its weight_scale differs"):
            revert(self.parts(0.5, 0.5, 0.25))

    def test_merged_scales_are_those_of_files_and_so_is_what_they_cost(self):
        result = self.assert_like_files(self.parts(0.5, 0.75, 0.25), merge_scales="max")
        self.assertEqual(float(result["qkv.weight_scale"][0]), 0.75)

    def test_scales_that_are_no_numbers_to_merge_under(self):
        with self.assertRaisesRegex(quantport.QuantConversionUnsupportedError, "weight_scale is no positive number"):
            revert(self.parts(0.5, 0.0, 0.25), merge_scales="max")

    def test_bytes_that_state_a_shape_are_stated_anew(self):
        module = "model.layers.0.mlp.w_both"
        tensors = {f"{module}.weight_packed": random_array((8, 4), np.int32), f"{module}.weight_scale": random_array((8, 1)),
                   f"{module}.weight_shape": np.array([8, 32], np.int64)}
        quantization = {"quantization_config": {"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": {
            "group_0": {"targets": ["Linear"], "weights": {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 32}}}}}
        result = self.assert_like_files(tensors, CONFIG | quantization)
        self.assertEqual(result["transformer.h.0.mlp.w_up.weight_shape"].tolist(), [4, 32])


class ModelAndReferenceTest(StateDictTest):
    def test_a_config_by_its_path_or_folder_with_what_lies_beside_it(self):
        write_checkpoint(self.path("export"), model(), CONFIG)
        for path in (self.path("export"), self.path("export", "config.json")):
            result = revert_state_dict(model(), path, mapping=MAPPING, on_unsupported="fail")
            self.assert_equal(result, revert(model()))
        with open(self.path("export", "hf_quant_config.json"), "w", encoding="utf-8") as f:
            json.dump({"quantization": {"quant_algo": "FP8", "exclude_modules": []}}, f)
        # Where names move, a config that contradicts the tensors is a warning.
        with self.assertWarnsRegex(quantport.QuantportWarning, "hf_quant_config.json"):
            revert_state_dict(model(), self.path("export"), mapping=MAPPING)

    def test_what_is_said_of_the_quantization_goes_before_the_config(self):
        stale = CONFIG | {"quantization_config": {"quant_method": "modelopt", "quant_algo": "NVFP4", "ignore": []}}
        with self.assertWarnsRegex(quantport.QuantportWarning, "config.json"):
            revert_state_dict(model(), stale, mapping=MAPPING)
        for quantization in ({}, {"quant_algo": "W8A8_INT8"}, {"quantization": {"quant_algo": "W8A8_INT8"}}):
            self.assert_equal(revert_state_dict(model(), stale, mapping=MAPPING, quantization=quantization), revert(model()))

    def test_a_mapping_of_the_registry(self):
        config = {"architectures": ["MixtralForCausalLM"], "model_type": "mixtral", "transformers_version": "5.17.0"}
        result = revert_state_dict({"model.layers.0.mlp.gate.weight": random_array((4, 8))}, config)
        self.assertEqual(list(result), ["model.layers.0.block_sparse_moe.gate.weight"])

    def test_a_mapping_file(self):
        with open(self.path("mapping.json"), "w", encoding="utf-8") as f:
            json.dump(MAPPING, f)
        self.assert_equal(revert(model(), mapping=None, mapping_file=self.path("mapping.json")), revert(model()))

    def test_scopes_of_a_live_models_transforms(self):
        renaming = {"type": "WeightRenaming", "source_patterns": ["hub"], "target_patterns": ["memory"],
                    "scope_prefix": "tower", "base_model_prefix": "model"}
        mapping = MAPPING | {"conversions": {"my_model": [renaming]}}
        tensors = {name: random_array(4, seed=i) for i, name in enumerate(
            ["model.tower.memory.weight", "tower.memory.weight", "memory.weight"])}
        self.assertEqual(list(revert(tensors, mapping=mapping)), ["model.tower.hub.weight", "tower.hub.weight", "memory.weight"])

    def test_references(self):
        tensors = {"model.layers.0.a.weight": random_array(4), "model.layers.1.a.weight": random_array(4)}
        hub = {"transformer.h.0.a.weight": random_array(4), "model.layers.1.a.weight": random_array(4)}
        write_checkpoint(self.path("hub"), hub, CONFIG)
        for kind, reference in {"names": list(hub), "names as keys": dict.fromkeys(hub), "arrays": hub, "generator": iter(hub),
                                "shapes": {name: t.shape for name, t in hub.items()}, "folder": self.path("hub")}.items():
            with self.subTest(kind):
                self.assertEqual(list(revert(tensors, reference=reference)), list(hub))

    def test_a_reference_that_is_another_models(self):
        with self.assertRaises(quantport.ReferenceMismatchError):
            revert(model(), reference=["some.other.weight"])

    def test_strict(self):
        reference = ["transformer.h.0.a.weight", "transformer.h.1.a.weight"]
        tensors = {"model.layers.0.a.weight": random_array(4)}
        _, report = revert(tensors, reference=reference, return_report=True)
        self.assertEqual(report.only_in_reference, ["transformer.h.1.a.weight"])
        with self.assertRaisesRegex(quantport.ReferenceMismatchError, "transformer.h.1.a.weight"):
            revert(tensors, reference=reference, strict=True)

    def test_the_report_is_a_line_for_people(self):
        _, report = revert({"model.layers.0.a.weight": random_array(4)}, return_report=True)
        self.assertEqual(repr(report), "reverted MyModel by private 1: 1 tensors became 1, 1 renamed, 0 cut or fused")


class BadInputTest(StateDictTest):
    def assert_refused(self, kind, pattern, state_dict=None, config=CONFIG, **options):
        with self.assertRaisesRegex(kind, pattern):
            revert_state_dict({"a.weight": random_array(4)} if state_dict is None else state_dict, config,
                              **{"mapping": MAPPING, **options})

    def test_state_dicts_that_are_none(self):
        class Module:
            def state_dict(self):
                return {}

        self.assert_refused(TypeError, "this is a .*Module: pass its state_dict", Module())
        self.assert_refused(TypeError, "this is a list", [("a.weight", random_array(4))])
        self.assert_refused(TypeError, "the key 3 is a int, not a string", {3: random_array(4)})

    def test_values_that_are_no_tensors(self):
        for value in ("nf4", None, 3, [1, 2], np.float32(1)):
            self.assert_refused(TypeError, r"state_dict\['b'\] is a .*, not a torch tensor or numpy array: leave it out",
                                {"a": random_array(4), "b": value})

    def test_dtypes_that_no_file_has(self):
        for dtype in (object, "complex128", ">f4", "datetime64[s]"):
            self.assert_refused(TypeError, r"state_dict\['b'\] has the dtype .*convert the tensor",
                                {"a": random_array(4), "b": np.zeros(2, dtype)})

    def test_a_tensor_that_lies_in_another(self):
        whole = random_array((8, 4))
        self.assert_refused(ValueError, r"state_dict\['part.weight'\] lies in the memory of state_dict\['whole.weight'\]",
                            {"part.weight": whole[:4], "whole.weight": whole})
        self.assert_refused(ValueError, r"state_dict\['part.weight'\] lies in the memory of state_dict\['whole.weight'\]",
                            {"part.weight": whole[:, :2], "whole.weight": whole})

    def test_configs(self):
        for config in ({"model_type": "mixtral"}, {"architectures": None}, {"architectures": []}):
            self.assert_refused(quantport.InvalidConfigError, "names no architecture.*architecture=", config=config, mapping=None)
        self.assertEqual(list(revert_state_dict({"model.layers.0.a": random_array(4)}, {}, mapping=MAPPING, architecture="MyModel")),
                         ["transformer.h.0.a"])
        self.assert_refused(quantport.UnknownArchitectureError, "NoSuchModel", config={"architectures": ["NoSuchModel"]})
        with self.assertWarnsRegex(quantport.QuantportWarning, "knows NoSuchModel: names are taken as they are"):
            kept = revert_state_dict({"model.layers.0.a": random_array(4)}, {"architectures": ["NoSuchModel"]})
        self.assertEqual(list(kept), ["model.layers.0.a"])
        self.assert_refused(TypeError, "model_or_config is a int: pass a transformers model", config=3)
        self.assert_refused(quantport.IoError, "can't read the config", config=self.path("nothing"))
        with open(self.path("config.json"), "w", encoding="utf-8") as f:
            f.write("{broken")
        self.assert_refused(quantport.InvalidConfigError, "config.json", config=self.path("config.json"))

    def test_references(self):
        self.assert_refused(quantport.IoError, "nothing", reference=self.path("nothing"))
        for reference in (3, {"a": "b"}, [3], {3: None}):
            self.assert_refused(TypeError, "reference is a .*: pass the hub checkpoint's folder", reference=reference)

    def test_options_of_a_wrong_type_are_named(self):
        for name, value in (("strict", "yes"), ("merge_scales", 3), ("architecture", 3), ("quantization", 3)):
            self.assert_refused((TypeError, ValueError), name, **{name: value})

    def test_options(self):
        for option in ("on_unsupported", "experts", "merge_scales"):
            self.assert_refused(ValueError, f"{option} is one of .*, not 'maybe'", **{option: "maybe"})
        self.assert_refused(ValueError, "mapping and transformers_version both say", transformers_version="5.17.0")
        self.assert_refused(quantport.UnknownVersionError, "1.2.3", mapping=None, transformers_version="1.2.3")

    def test_mappings(self):
        broken = MAPPING | {"conversions": {"my_model": [converter(["a"], ["b"], {"op": "Juggle"})]}}
        self.assert_refused(quantport.InvalidMappingError, 'the mapping given as text: .*unknown operation "Juggle"', mapping=broken)


class PlaceTest(unittest.TestCase):
    """place() against numpy: an element of a view is that of the dense array's view."""

    def test_random_views_of_random_layouts(self):
        generator = random.Random(1)
        found = 0
        for _ in range(2000):
            shape = [generator.randint(1, 4) for _ in range(generator.randint(1, 4))]
            base = np.arange(2000)[:int(np.prod(shape)) * 8]
            order = generator.sample(range(len(shape)), len(shape))
            strides, step = [0] * len(shape), generator.choice([1, 2])
            for dim in order:
                strides[dim] = step
                step *= shape[dim] * generator.choice([1, 1, 2])
            array = np.lib.stride_tricks.as_strided(base, shape, [s * base.itemsize for s in strides])
            dense = np.ascontiguousarray(array).reshape(-1)
            extents = [generator.randint(1, 3) for _ in range(generator.randint(0, 3))]
            steps = [generator.randint(1, 8) for _ in extents]
            offset = generator.randint(0, dense.size - 1)
            if offset + sum((n - 1) * s for n, s in zip(extents, steps)) >= dense.size:
                continue
            placed = place(shape, strides, offset, extents, steps)
            if placed is None:
                continue
            found += 1
            want = np.lib.stride_tricks.as_strided(dense[offset:], extents, [s * dense.itemsize for s in steps])
            got = np.lib.stride_tricks.as_strided(base[placed[0]:], extents, [s * base.itemsize for s in placed[1]])
            np.testing.assert_array_equal(got, want)
        self.assertGreater(found, 300)

    def test_what_no_strides_can_say(self):
        self.assertIsNone(place((4, 4), (1, 4), 0, (16,), (1,)))
        self.assertIsNone(place((2, 3), (4, 1), 2, (2,), (1,)))


if __name__ == "__main__":
    warnings.simplefilter("error", quantport.QuantportWarning)
    unittest.main()
