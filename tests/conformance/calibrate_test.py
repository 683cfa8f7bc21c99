"""`calibrate` on live models: ModelOpt's amax, experts however they compute, and nothing left behind."""
import os
import subprocess
import sys
import unittest
import warnings
from unittest import mock

import torch
from safetensors.torch import load_file
from torch.overrides import _get_current_function_mode_stack
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.modeling_utils import AttentionInterface

import quantport
from live_models import BATCHES, MIXTURES, LiveTest, goldens, quantize_config, run_batches, tiny
from quantport.expert_containers import find_expert_containers

EVERY_ACTIVATION = "fp8_default-kv_fp8"  # the recipe that enables all of ModelOpt's activation quantizers
MODELS = ["llama", *MIXTURES]
# Containers that the mixtures have none like: without a gate, and with others' settings around them.
OTHERS = {
    "nemotron_h": {"layers_block_type": ["mamba", "moe", "attention", "moe"], "n_routed_experts": 4, "n_group": 1,
                   "topk_group": 1, "moe_shared_expert_intermediate_size": 64, "mamba_num_heads": 4, "mamba_head_dim": 32,
                   "ssm_state_size": 16, "n_groups": 2, "chunk_size": 16},
    "glm4_moe": {"num_hidden_layers": 2, "n_routed_experts": 4, "n_group": 1, "topk_group": 1,
                 "first_k_dense_replace": 1},
    "minimax_m2": {"num_hidden_layers": 2, "num_local_experts": 4},
}


def hook_count(model):
    return sum(len(hooks) for module in model.modules()
               for hooks in (module._forward_hooks, module._forward_pre_hooks, module._forward_hooks_always_called,
                             module._forward_hooks_with_kwargs, module._forward_pre_hooks_with_kwargs))


def traces(model):
    """Everything that a calibration changes while it runs."""
    return {"hooks": hook_count(model), "attention": AttentionInterface.get_interface,
            "linear": torch.nn.functional.linear, "modes": len(_get_current_function_mode_stack()),
            "training": [module.training for module in model.modules()], "gradients": torch.is_grad_enabled(),
            "experts": [c.module.config._experts_implementation for c in find_expert_containers(model)],
            "config": model.config._experts_implementation}


class AmaxTest(LiveTest):
    def calibrated(self, model, batches=BATCHES, **how):
        out = self.path("amax.safetensors")
        report = quantport.calibrate(model, batches, out, **how)
        return load_file(out), report

    def test_every_activation_has_the_amax_that_modelopt_finds(self):
        for name in MODELS:
            with self.subTest(model=name):
                theirs = goldens.activation_amax(self.quantized_model(name, EVERY_ACTIVATION))
                ours, _ = self.calibrated(self.model(name))
                self.assertEqual({key: ours.get(key) for key in theirs}, theirs)
                self.assertTrue(any(key.endswith("k_amax") for key in theirs))
                others = {key for key in ours if key not in theirs}  # off in the recipe
                self.assertEqual(others, {"lm_head.input_amax"})

    def test_containers_of_other_classes_have_modelopts_amax_too(self):
        for name, settings in OTHERS.items():
            with self.subTest(model=name):
                sizes = {key: value for key, value in tiny.SIZES.items() if key != "num_hidden_layers"}
                config = AutoConfig.for_model(name, **sizes, head_dim=32, moe_intermediate_size=64, num_experts_per_tok=2,
                                              **settings)
                model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).eval()
                ours, report = self.calibrated(model)
                first = "up_proj" if name == "nemotron_h" else "gate_up_proj"
                self.assertIn(f"{report.containers[0].name}.{first}.input_amax", ours)
                theirs = goldens.activation_amax(
                    goldens.mtq.quantize(model, quantize_config(EVERY_ACTIVATION), forward_loop=run_batches))
                self.assertEqual({key: ours.get(key) for key in theirs}, theirs)

    def test_experts_that_compute_in_groups_are_seen_one_by_one(self):
        for name in MIXTURES:
            for implementation in ("grouped_mm", "batched_mm"):
                with self.subTest(model=name, implementation=implementation):
                    model = self.model(name, experts_implementation=implementation)
                    ours, _ = self.calibrated(model)
                    self.assertEqual(find_expert_containers(model)[0].module.config._experts_implementation,
                                     implementation)
                    expected, _ = self.calibrated(self.model(name, experts_implementation="eager"))
                    self.assertEqual(ours, expected)

    def test_eager_attention_gives_the_amax_of_sdpa(self):
        eager, _ = self.calibrated(self.model("llama", attn_implementation="eager"))
        sdpa, _ = self.calibrated(self.model("llama", attn_implementation="sdpa"))
        self.assertEqual(eager["model.layers.0.self_attn.k_amax"], sdpa["model.layers.0.self_attn.k_amax"])

    def test_tokens_are_counted_for_each_expert_and_experts_without_are_listed(self):
        model = self.model("deepseek_v3")
        chosen = []
        experts = find_expert_containers(model)[0]
        handle = experts.module.register_forward_pre_hook(lambda module, args: chosen.append(args[1].flatten()))
        _, report = self.calibrated(model)
        handle.remove()
        tokens = torch.bincount(torch.cat(chosen), minlength=tiny.EXPERTS).tolist()
        container, = report.containers
        self.assertEqual((container.name, container.class_name, container.tokens),
                         (experts.name, "DeepseekV3Experts", tokens))
        self.assertEqual(container.unseen, [i for i in range(tiny.EXPERTS) if tokens[i] == 0])
        self.assertTrue(container.unseen, "the case has no expert without tokens")
        self.assertEqual(report.to_dict()["unseen_experts"], len(container.unseen))
        self.assertIn("no token reached " + ", ".join(map(str, container.unseen)), repr(report))

    def test_modules_that_nothing_reached_are_listed(self):
        _, report = self.calibrated(self.model("minimax_m3"))
        self.assertTrue(report.unseen_modules)
        self.assertTrue(all(name.startswith(("model.vision_tower", "model.multi_modal_projector"))
                            for name in report.unseen_modules))

    def test_batches_may_be_dicts_tensors_tuples_a_generator_or_run_by_a_function(self):
        model = self.model("llama")
        expected, _ = self.calibrated(model)
        tensors = [batch["input_ids"] for batch in BATCHES]
        for title, batches, how in (("tensors", tensors, {}), ("tuples", [(t,) for t in tensors], {}),
                                    ("generator", (b for b in BATCHES), {}),
                                    ("function", tensors, {"forward": lambda m, t: m(input_ids=t, use_cache=False)})):
            with self.subTest(title):
                done = []
                ours, report = self.calibrated(model, batches, progress=lambda *at: done.append(at), **how)
                total = None if title == "generator" else 2
                self.assertEqual((ours, report.batches, done), (expected, 2, [(1, total), (2, total)]))

    def test_a_single_batch_is_taken_as_one(self):
        model = self.model("llama")
        self.assertEqual(self.calibrated(model, BATCHES[0])[1].batches, 1)
        self.assertEqual(self.calibrated(model, BATCHES[0]["input_ids"])[1].batches, 1)

    def test_a_model_that_accelerate_keeps_elsewhere_gives_the_same(self):
        import accelerate

        expected, _ = self.calibrated(self.model("mixtral"))
        for title in ("cpu", "disk"):
            with self.subTest(offload=title):
                model = self.model("mixtral")
                if title == "cpu":
                    accelerate.cpu_offload(model, execution_device="cpu")
                else:
                    accelerate.disk_offload(model, self.path("offload"), execution_device="cpu")
                self.assertEqual(next(model.parameters()).device.type, "meta")
                ours, report = self.calibrated(model)
                self.assertEqual(ours, expected)
                self.assertEqual(sum(report.containers[0].tokens), 2 * 104)

    @unittest.skipUnless(torch.cuda.is_available(), "needs a GPU")
    def test_a_gpu_and_a_model_spread_over_devices_give_modelopts_amax(self):
        for title, device_map in (("cuda", "cuda:0"), ("spread", {"model.embed_tokens": "cpu", "model.rotary_emb": "cpu",
                                                                  "model.layers.0": "cpu", "model.layers.1": 0,
                                                                  "model.norm": 0, "lm_head": 0})):
            for name in ("mixtral", "qwen3_moe"):
                with self.subTest(device_map=title, model=name):
                    ours, _ = self.calibrated(self.model(name, device_map=device_map))
                    model = self.model(name, device_map=device_map)
                    theirs = goldens.activation_amax(
                        goldens.mtq.quantize(model, goldens.quantize_config(EVERY_ACTIVATION), forward_loop=lambda m: [
                            m(input_ids=b["input_ids"].to("cpu" if title == "spread" else 0)) for b in BATCHES]))
                    self.assertEqual({key: ours.get(key) for key in theirs}, {k: v.cpu() for k, v in theirs.items()})

    @unittest.skipUnless(torch.cuda.is_available(), "needs a GPU")
    def test_a_nan_on_a_gpu_is_found_among_many_values(self):
        model = torch.nn.Sequential(torch.nn.Linear(512, 8)).to("cuda", torch.bfloat16)
        batch = torch.randn(4096, 512, device="cuda", dtype=torch.bfloat16)
        self.assertEqual(self.calibrated(model, [batch])[0]["0.input_amax"], batch.abs().max().item())
        for place in (0, 2000, -1):
            batch[place, 77] = float("nan")
            with self.assertRaisesRegex(quantport.CalibrationError, "the input of 0 is not finite"):
                self.calibrated(model, [batch])
            batch[place, 77] = 0

    @unittest.skipUnless(torch.cuda.is_available(), "needs a GPU")
    def test_collecting_an_amax_does_not_wait_for_the_gpu(self):
        model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Linear(8, 8)).cuda()
        model.mixture = Mixture().cuda()

        def forward(model, batch):
            torch.cuda.set_sync_debug_mode("error")  # transformers' own masks would wait
            try:
                model.mixture(model[1](model[0](batch)), 1)
            finally:
                torch.cuda.set_sync_debug_mode("default")

        amax, _ = self.calibrated(model, [torch.ones(4, 8, device="cuda")] * 3, forward=forward)
        self.assertEqual(amax["0.input_amax"], 1)


class FailureTest(LiveTest):
    def assert_fails_without_a_trace(self, model, error, message, batches=BATCHES, **how):
        before, out = traces(model), self.path("amax.safetensors")
        with self.assertRaisesRegex(error, message) as caught:
            quantport.calibrate(model, batches, out, **how)
        self.assertEqual(traces(model), before)
        self.assertFalse([name for name in os.listdir(self.folder) if name.startswith("amax")])
        return str(caught.exception)

    def test_a_failure_in_the_middle_leaves_no_hook_no_patch_and_no_file(self):
        model = self.model("mixtral", experts_implementation="grouped_mm")
        model.train()
        model.model.layers[0].eval()
        for error in (ValueError, KeyboardInterrupt):
            with self.subTest(error=error.__name__), self.subTest(inside="experts"):
                # Inside a container's forward, while its call is being watched.
                calls = []

                def failing(gate, error=error, calls=calls):
                    calls.append(1)
                    if len(calls) > 3:
                        raise error("stop here")
                    return gate

                experts = find_expert_containers(model)[1].module
                with mock.patch.object(experts.act_fn, "forward", failing):
                    self.assert_fails_without_a_trace(model, error, "stop here")
                self.assertEqual(len(calls), 4)

        def second_fails(m, batch, done=[]):
            done.append(m(**batch))
            if len(done) == 2:
                raise RuntimeError("second")

        self.assert_fails_without_a_trace(model, RuntimeError, "second", forward=second_fails)
        quantport.calibrate(model, BATCHES, self.path("again.safetensors"))

    def test_a_run_that_is_done_leaves_no_trace_either(self):
        model = self.model("qwen3_vl_moe", experts_implementation="grouped_mm").train()
        before = traces(model)
        quantport.calibrate(model, BATCHES, self.path("amax.safetensors"))
        self.assertEqual(traces(model), before)

    def test_activations_that_are_not_finite_name_the_first_module(self):
        model = self.model("llama")
        embeddings = model.get_input_embeddings()(BATCHES[0]["input_ids"]).detach()
        for value in (float("nan"), float("inf")):
            with self.subTest(value=value):
                bad = embeddings.clone()
                bad[0, 0, 0] = value
                self.assert_fails_without_a_trace(
                    model, quantport.CalibrationError, r"the input of model\.layers\.0\.self_attn\.q_proj is not finite",
                    [{"inputs_embeds": bad}, {"inputs_embeds": embeddings}])

    def test_a_value_in_an_expert_that_is_not_finite_names_the_container(self):
        model = self.model("mixtral")
        experts = find_expert_containers(model)[1]
        with mock.patch.object(experts.module.act_fn, "forward", lambda gate: gate * float("inf")):
            self.assert_fails_without_a_trace(model, quantport.CalibrationError,
                                              rf"the input of {experts.name}\.down_proj is not finite")

    def test_no_batches_is_an_error(self):
        self.assert_fails_without_a_trace(self.model("llama"), quantport.CalibrationError, "no batches", [])

    def test_a_batch_that_can_not_be_run_says_what_to_give(self):
        model = self.model("llama")
        for batch in ("text", [1, 2], None):
            self.assert_fails_without_a_trace(model, TypeError, "say with forward", [batch])

    def test_a_place_that_can_not_be_written_is_told_before_the_first_batch(self):
        model = self.model("llama")
        with self.assertRaisesRegex(FileNotFoundError, "make it before calibrating"):
            quantport.calibrate(model, iter([None]), self.path("missing/amax.safetensors"))
        with self.assertRaisesRegex(IsADirectoryError, "name the file"):
            quantport.calibrate(model, iter([None]), self.folder)

    def test_a_model_without_weights_says_so(self):
        with torch.device("meta"):
            model = tiny.build("llama")
        self.assert_fails_without_a_trace(model, quantport.CalibrationError, "meta device", [
            {"input_ids": BATCHES[0]["input_ids"].to("meta")}])


class Experts(torch.nn.Module):
    """A container of its own kind: no activation function by name, one projection more between the two."""

    def __init__(self, gated=True, copied=False, experts=3, width=8):
        super().__init__()
        self.num_experts, self.copied, self.gated = experts, copied, gated
        torch.manual_seed(0)
        first = torch.nn.Parameter(torch.randn(experts, 2 * width if gated else width, width))
        setattr(self, "gate_up_proj" if gated else "up_proj", first)
        self.down_proj = torch.nn.Parameter(torch.randn(experts, width, width))
        self.between = torch.nn.Linear(width, width, bias=False)

    def forward(self, tokens, expert):
        first = (self.gate_up_proj if self.gated else self.up_proj)[expert]
        down = self.down_proj[expert]
        if self.copied:
            first, down = first.clone(), down.clone()
        hidden = torch.nn.functional.linear(tokens, first)
        hidden = self.between(hidden[..., :8])
        self.hidden = hidden
        return torch.nn.functional.linear(hidden, down)


class Mixture(torch.nn.Module):
    def __init__(self, **how):
        super().__init__()
        self.experts = Experts(**how)

    def forward(self, tokens, expert):
        return self.experts(tokens, expert)


class StructureTest(LiveTest):
    def test_experts_are_found_and_told_apart_whatever_lies_between_their_linears(self):
        for how in ({}, {"gated": False}, {"copied": True}, {"gated": False, "copied": True}):
            with self.subTest(**how):
                model = Mixture(**how)
                tokens = torch.linspace(-3, 2, 16).reshape(2, 8)
                out = self.path("amax.safetensors")
                report = quantport.calibrate(model, [(tokens, torch.tensor(2))], out)
                first = "gate_up_proj" if how.get("gated", True) else "up_proj"
                amax = load_file(out)
                self.assertEqual(amax[f"experts.{first}.input_amax"], tokens.abs().max())
                self.assertEqual(amax["experts.down_proj.input_amax"], model.experts.hidden.abs().max())
                self.assertEqual(report.containers[0].tokens, None if "copied" in how else [0, 0, 2])

    def test_experts_that_are_modules_are_counted_by_their_linears(self):
        model = torch.nn.Module()
        model.experts = torch.nn.ModuleList([torch.nn.ModuleDict({"up_proj": torch.nn.Linear(4, 4)}) for _ in range(3)])
        model.forward = lambda tokens: model.experts[1]["up_proj"](tokens)
        report = quantport.calibrate(model, torch.ones(5, 4), self.path("amax.safetensors"))
        self.assertEqual([(c.name, c.tokens) for c in report.containers], [("experts", [0, 5, 0])])

    def test_experts_that_never_call_linear_are_warned_of(self):
        model = Mixture()
        model.experts.forward = lambda tokens, expert: tokens @ model.experts.down_proj[0]
        model.head = torch.nn.Linear(8, 8)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            report = quantport.calibrate(model, [torch.ones(2, 8)], self.path("amax.safetensors"),
                                         forward=lambda m, t: m.head(m(t, 0)))
        self.assertIsNone(report.containers[0].tokens)
        self.assertEqual(report.unseen_modules, ["experts.between", "experts.gate_up_proj", "experts.down_proj"])
        self.assertRegex(str(caught[0].message), "no expert of experts .Experts. was seen")
        self.assertEqual(caught[0].filename, __file__)

    def test_the_models_outputs_are_what_they_are_without(self):
        model = self.model("mixtral", experts_implementation="eager")
        with torch.no_grad():
            expected = model(**BATCHES[0]).logits
        seen = []
        quantport.calibrate(model, [BATCHES[0]], self.path("amax.safetensors"),
                            forward=lambda m, batch: seen.append(m(**batch).logits))
        self.assertTrue(torch.equal(seen[0], expected))
        self.assertFalse(seen[0].requires_grad)

    def test_the_package_can_be_imported_without_torch_and_says_so_where_it_is_needed(self):
        code = "import sys; sys.modules['torch'] = None\nimport quantport\nprint('imported')\nquantport.calibrate"
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        self.assertEqual(run.stdout, "imported\n")
        self.assertIn("torch", run.stderr)


if __name__ == "__main__":
    unittest.main()
