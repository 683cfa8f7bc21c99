"""The number of experts in configs of classes whose tensors were made small, for the recorders and the tests of conformance."""
KEYS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts", "num_routed_experts", "num_moe_experts")


def with_experts(config, count):
    """The same config with `count` experts wherever the class has any; nothing else is changed."""
    changed = {}
    for key, value in config.items():
        if key in KEYS and value:
            value = [count] * len(value) if isinstance(value, list) else count
        changed[key] = with_experts(value, count) if isinstance(value, dict) else value
    return changed
