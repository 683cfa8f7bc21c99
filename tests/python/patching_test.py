"""What `patch` decides without transformers and ModelOpt."""
import unittest
from unittest import mock

import quantport
from quantport.patching import is_quantized


class PatchingTest(unittest.TestCase):
    def test_without_transformers_and_modelopt_it_says_what_is_missing(self):
        with mock.patch("quantport.patching._installed_version", return_value=None):
            with self.assertRaisesRegex(ImportError, "transformers or nvidia-modelopt"):
                quantport.patch().__enter__()

    def test_other_versions_are_refused_with_what_to_do_instead(self):
        for package, version in (("transformers", "5.16.9"), ("nvidia-modelopt", "0.48.0"), ("nvidia-modelopt", "0.470")):
            with self.subTest(package=package, version=version):
                installed = {package: version}.get
                with mock.patch("quantport.patching._installed_version", installed):
                    with self.assertRaisesRegex(quantport.UnknownVersionError, f"{package} {version} .*quantport revert"):
                        quantport.patch().__enter__()

    def test_a_state_dict_is_quantized_where_something_is_stored_beside_a_weight(self):
        for leaf in ("weight_scale", "weight_scale_2", "weight_scale_inv", "input_scale", "weight_packed", "qweight",
                     "weight.absmax", "gate_up_proj_scales", "k_proj.k_scale", "down_proj_weight_scale"):
            self.assertTrue(is_quantized(["model.norm.weight", f"model.layers.0.mlp.{leaf}"]), leaf)
        for leaf in ("weight", "bias", "scale", "logit_scale", "layer_scale.weight", "gamma"):
            self.assertFalse(is_quantized([f"model.layers.0.mlp.{leaf}"]), leaf)


if __name__ == "__main__":
    unittest.main()
