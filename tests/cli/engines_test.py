"""`verify --engine` says of every cell of tests/golden/engines what the engine itself said when it was recorded."""
import json
import os
import sys
import unittest

from program import ROOT, ProgramTest, run, write_checkpoint

sys.path.insert(0, f"{ROOT}/tests/engines")

import cells

# Where the checks and the engine differ, and why.
KNOWN = {
    # SGLang takes q_a_proj's weight_scale for kv_a_proj_with_mqa too, which have one layer. No check knows that yet.
    "sglang-0.5.23 deepseek_v3 fp8_default-kv_fp8 as_written",
}


def tables():
    for file in sorted(os.listdir(cells.GOLDENS)):
        if file.endswith(".json"):
            with open(f"{cells.GOLDENS}/{file}", encoding="utf-8") as f:
                yield file.removesuffix(".json"), json.load(f)


class EnginesTest(ProgramTest):
    maxDiff = None

    def verdict(self, folder, engine):
        """Whether it loads, and the ids of the checks that say no."""
        result = run("verify", folder, "--engine", engine.replace("-", "@"), "--json")
        report = json.loads(result.stdout)
        if report.get("engine") is None:
            return [error["message"] for error in report.get("problems", report.get("errors"))]
        return sorted({finding["check"] for finding in report["engine"]["findings"] if finding["problem"]})

    def test_every_cell_is_judged_as_the_engine_judged_it(self):
        found, wanted = {}, {}
        by_model = {}
        for engine, table in tables():
            for model, recipes in table.items():
                for recipe, variants in recipes.items():
                    if "refused" not in variants:
                        by_model.setdefault(model, {}).setdefault(recipe, {})[engine] = variants
        self.assertTrue(by_model)
        for model, recipes in by_model.items():
            with open(f"{cells.GOLDENS}/models/{model}.json", encoding="utf-8") as f:
                cells.write_model(json.load(f), self.path(f"{model}/hub"))
            calibration = cells.write_calibration(self.path(f"{model}/hub"), self.path(model))
            for recipe, engines in recipes.items():
                folder = self.path(f"{model}/{recipe}")
                self.assert_done(cells.quantize(self.path(f"{model}/hub"), recipe, folder, calibration))
                for variant, path in cells.variants(folder, recipe, self.path(model)):
                    for engine, variants in engines.items():
                        if variant not in variants:
                            continue
                        cell = f"{engine} {model} {recipe} {variant}"
                        checks = self.verdict(path, engine)
                        found[cell] = not checks
                        wanted[cell] = variants[variant]["verdict"] == "loads"
                        if found[cell] != wanted[cell] and cell not in KNOWN:
                            print(cell, checks, variants[variant], flush=True)
        differing = {cell for cell in wanted if wanted[cell] != found[cell]}
        self.assertEqual(sorted(differing), sorted(KNOWN))

    def test_what_no_facts_are_known_of_is_not_said_to_load(self):
        for config in ({"architectures": ["GemmaForCausalLM"], "model_type": "gemma"},
                       {"architectures": ["LlamaForCausalLM"], "model_type": "llama",
                        "quantization_config": {"quant_method": "some_other"}}):
            with self.subTest(config):
                self.setUp()
                write_checkpoint(self.path("in"), config, [("model.norm.weight", "BF16", [8], bytes(16))])
                result = run("verify", self.path("in"), "--no-reference", "--engine", "vllm")
                self.assertNotIn("loads whole", result.stdout)
                report = json.loads(run("verify", self.path("in"), "--no-reference", "--engine", "vllm", "--json").stdout)
                self.assertFalse(report["engine"]["complete"])


if __name__ == "__main__":
    unittest.main()
