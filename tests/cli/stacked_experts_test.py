"""Experts that the export keeps stacked in 3-D, with their scales: each becomes linears of its own."""
import unittest

from exports import as_dict, bf16, entry, minimax_config, mixtral_config, nvfp4, renamed, rows, tensor
from program import run, write_checkpoint
from revert_case import RevertTest

CONTAINER, HUB = "model.layers.0.mlp.experts", "model.layers.0.block_sparse_moe.experts"
E, H, I = 3, 64, 32  # experts, hidden size, intermediate size


def nvfp4_stack(name, join, out, inner, scalar_shape):
    """A stacked parameter in NVFP4; `join` is what stands between its name and a companion's."""
    value = f"{name}.weight" if join == "." else name
    return [tensor(value, "U8", [E, out, inner // 2]),
            tensor(f"{name}{join}weight_scale", "F8_E4M3", [E, out, inner // 16]),
            tensor(f"{name}{join}weight_scale_2", "F32", scalar_shape),
            tensor(f"{name}{join}input_scale", "F32", scalar_shape)]


def fp8_stack(name, join, out, inner, scale_shape, leaf="weight_scale"):
    value = f"{name}.weight" if join == "." else name
    return [tensor(value, "F8_E4M3", [E, out, inner]), tensor(f"{name}{join}{leaf}", "F32", scale_shape)]


def leaf_of(name):
    for leaf in ("weight_scale_inv", "weight_scale_2", "weight_scale", "input_scale", "bias"):
        if name.endswith(leaf):
            return leaf
    return "weight"


def experts_of(tensors, linears, scalars=()):
    """The hub's tensors: `linears` share an expert's rows equally; leaves of `scalars` are given to each."""
    want = {}
    for name, *stored in tensors:
        leaf = leaf_of(name)
        for i in range(E):
            one = entry(tuple(stored), i)
            for part, linear in enumerate(linears):
                value = one
                if one[1] and leaf not in scalars:
                    step = one[1][0] // len(linears)
                    value = rows(one, part * step, (part + 1) * step)
                want[f"{HUB}.{i}.{linear}.{leaf}"] = value
    return want


class StackedExpertsTest(RevertTest):
    def check(self, gate_up, down, scalars=()):
        want = experts_of(gate_up, ["w1", "w3"], scalars) | experts_of(down, ["w2"], scalars)
        config = mixtral_config(algorithm="FP8" if gate_up[0][1] == "F8_E4M3" else "NVFP4")
        self.assert_tensors(self.revert(config, gate_up + down), want)

    def test_float_experts_become_linears(self):
        self.check([bf16(f"{CONTAINER}.gate_up_proj", E, 2 * I, H)], [bf16(f"{CONTAINER}.down_proj", E, H, I)])

    def test_float_experts_under_a_weight_leaf_become_linears(self):
        self.check([bf16(f"{CONTAINER}.gate_up_proj.weight", E, 2 * I, H)],
                   [bf16(f"{CONTAINER}.down_proj.weight", E, H, I)])

    def test_nvfp4_with_a_scalar_for_each_expert(self):
        for join in ("_", "."):
            with self.subTest(join):
                self.setUp()
                self.check(nvfp4_stack(f"{CONTAINER}.gate_up_proj", join, 2 * I, H, [E]),
                           nvfp4_stack(f"{CONTAINER}.down_proj", join, H, I, [E]))

    def test_nvfp4_with_one_scalar_for_all_experts_gives_it_to_each(self):
        for join in ("_", "."):
            with self.subTest(join):
                self.setUp()
                self.check(nvfp4_stack(f"{CONTAINER}.gate_up_proj", join, 2 * I, H, []),
                           nvfp4_stack(f"{CONTAINER}.down_proj", join, H, I, []))

    def test_fp8_per_tensor_with_a_scalar_for_each_expert(self):
        self.check(fp8_stack(f"{CONTAINER}.gate_up_proj", "_", 2 * I, H, [E]),
                   fp8_stack(f"{CONTAINER}.down_proj", "_", H, I, [E]))

    def test_fp8_scalars_that_kept_their_dimensions_keep_the_rest_of_them(self):
        self.check(fp8_stack(f"{CONTAINER}.gate_up_proj", "_", 2 * I, H, [E, 1, 1]),
                   fp8_stack(f"{CONTAINER}.down_proj", "_", H, I, [E, 1, 1]), scalars=["weight_scale"])

    def test_fp8_per_channel_scales_are_cut_with_the_rows(self):
        for kept in ([], [1]):
            with self.subTest(kept):
                self.setUp()
                self.check(fp8_stack(f"{CONTAINER}.gate_up_proj", ".", 2 * I, H, [E, 2 * I, *kept]),
                           fp8_stack(f"{CONTAINER}.down_proj", ".", H, I, [E, H, *kept]))

    def test_fp8_block_scales_are_cut_at_block_borders(self):
        self.check(fp8_stack(f"{CONTAINER}.gate_up_proj", "_", 256, 128, [E, 2, 1], "weight_scale_inv"),
                   fp8_stack(f"{CONTAINER}.down_proj", "_", 128, 128, [E, 1, 1], "weight_scale_inv"))

    def test_fp8_scale_inv_is_called_weight_scale_inv_beside_an_expert(self):
        stacks = []
        for name, out, inner in (("gate_up_proj", 256, 128), ("down_proj", 128, 128)):
            stacks.append([tensor(f"{CONTAINER}.{name}", "F8_E4M3", [E, out, inner]),
                           tensor(f"{CONTAINER}.{name}_scale_inv", "F32", [E, out // 128, 1])])
        named = [[(n.replace("_scale_inv", "_weight_scale_inv"), *rest) for n, *rest in stack] for stack in stacks]
        want = experts_of(named[0], ["w1", "w3"]) | experts_of(named[1], ["w2"])
        self.assert_tensors(self.revert(mixtral_config(algorithm="FP8"), stacks[0] + stacks[1]), want)

    def test_biases_are_taken_apart_with_their_weights(self):
        for join in ("_", "."):
            with self.subTest(join):
                self.setUp()
                gate_up = nvfp4_stack(f"{CONTAINER}.gate_up_proj", join, 2 * I, H, [E])
                down = nvfp4_stack(f"{CONTAINER}.down_proj", join, H, I, [E])
                self.check(gate_up + [bf16(f"{CONTAINER}.gate_up_proj{join}bias", E, 2 * I)],
                           down + [bf16(f"{CONTAINER}.down_proj{join}bias", E, H)])

    def test_biases_of_experts_stored_one_by_one_go_with_their_weights(self):
        names = {"gate_proj": "w1", "up_proj": "w3", "down_proj": "w2"}
        tensors = [t for i in range(E) for name in names for t in nvfp4(f"{CONTAINER}.{i}.{name}", 64, 64, bias=True)]
        want = as_dict(renamed(tensors, *((f"{CONTAINER}.{i}.{name}.", f"{HUB}.{i}.{hub}.")
                                          for i in range(E) for name, hub in names.items())))
        self.assertIn(f"{HUB}.2.w3.bias", want)
        self.assert_tensors(self.revert(mixtral_config(), tensors), want)

    def test_experts_laid_end_to_end_again_are_the_stack(self):
        gate_up = nvfp4_stack(f"{CONTAINER}.gate_up_proj", "_", 2 * I, H, [E])
        got = self.revert(mixtral_config(), gate_up)
        for name, (_, shape, body) in as_dict(gate_up).items():
            leaf = leaf_of(name)
            pieces = []
            for i in range(E):
                pair = [got[f"{HUB}.{i}.{linear}.{leaf}"][2] for linear in ("w1", "w3")]
                if len(shape) == 1:
                    self.assertEqual(pair[0], pair[1])
                    pair = pair[:1]
                pieces += pair
            self.assertEqual(b"".join(pieces), body, name)

    def test_layers_may_differ_in_how_they_keep_experts(self):
        stacked = nvfp4_stack(f"{CONTAINER}.down_proj", "_", H, I, [E])
        other = "model.layers.1.mlp.experts.0.down_proj"
        expanded = [tensor(f"{other}.{leaf}", dtype, shape) for leaf, dtype, shape in (
            ("weight", "U8", [H, I // 2]), ("weight_scale", "F8_E4M3", [H, I // 16]), ("weight_scale_2", "F32", []),
            ("input_scale", "F32", []))]
        want = experts_of(stacked, ["w2"])
        want |= {n.replace(".mlp.", ".block_sparse_moe.").replace("down_proj", "w2"): v
                 for n, v in as_dict(expanded).items()}
        self.assert_tensors(self.revert(mixtral_config(), stacked + expanded), want)

    def test_one_stack_may_hold_many_experts(self):
        count = 130
        write_checkpoint(self.path("in"), mixtral_config(), [bf16(f"{CONTAINER}.down_proj", count, 2, 4)])
        self.assert_done(run("revert", self.path("in"), "-o", self.path("out")))

    def test_minimax_experts_keep_their_own_short_names(self):
        layer = "model.language_model.layers.1.mlp.experts"
        hub = "language_model.model.layers.1.block_sparse_moe.experts"
        stacks = [(nvfp4_stack(f"{layer}.gate_up_proj", "_", 2 * I, H, [E]), ["w1", "w3"]),
                  (nvfp4_stack(f"{layer}.down_proj", "_", H, I, [E]), ["w2"])]
        want = {n.replace(HUB, hub): v for tensors, linears in stacks for n, v in experts_of(tensors, linears).items()}
        self.assert_tensors(self.revert(minimax_config(), stacks[0][0] + stacks[1][0]), want)


if __name__ == "__main__":
    unittest.main()
