#!/usr/bin/env python3
"""What changed between two mapping files, a change a line.

    tools/diff_mappings.py OLD NEW

OLD and NEW are files, or versions in data/mappings. Transforms are lines "sources -> targets [operations]"; "-" before
one that is gone, "+" before one that is new. Anchors and escapes that mean the same under each file's own pattern rules
still show: patterns are printed as they stand.
"""
import argparse
import difflib
import json
import os

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def load(name):
    path = name if os.path.exists(name) else f"{ROOT}/data/mappings/transformers-{name}.json"
    with open(path, encoding="utf-8") as f:
        return json.load(f)


def operation_line(operation):
    arguments = [f"{key}={value}" for key, value in operation.items()
                 if key != "op" and value is not None and value is not False]
    return f"{operation['op']}({', '.join(arguments)})"


def transform_line(transform):
    """A transform on one line."""
    if transform["type"] == "PrefixChange":
        verb = "remove" if transform.get("prefix_to_remove") else "add"
        prefix = transform.get("prefix_to_remove") or transform.get("prefix_to_add")
        below = transform.get("model_prefix")
        return f"{verb} the prefix {prefix}" + (f" below {below}" if below else "")
    line = f"{', '.join(transform['source_patterns'])} -> {', '.join(transform['target_patterns'])}"
    if transform["type"] not in ("WeightRenaming", "WeightConverter"):
        line += f" ({transform['type']}{' %+d' % transform['offset'] if 'offset' in transform else ''})"
    if "operations" in transform:
        line += f" [{', '.join(map(operation_line, transform['operations']))}]"
    return line


def transforms_of(mapping, key):
    found = mapping["conversions"].get(key, [])
    return mapping["conversions"][found[1:]] if isinstance(found, str) else found


def submodel_lines(submodels, indent=""):
    lines = []
    for child in submodels:
        shown = {key: value for key, value in child.items() if key not in ("path", "submodels")}
        lines.append(f"{indent}{child['path']}: {json.dumps(shown)}")
        lines += submodel_lines(child.get("submodels", []), indent + "  ")
    return lines


def class_lines(model):
    """Everything that a class's record says, a line each."""
    facts = [f"{key}: {json.dumps(value)}" for key, value in model.items() if key != "submodels"]
    return facts + submodel_lines(model.get("submodels", []))


def print_list(title, names):
    if names:
        print(f"{title} ({len(names)})")
        for name in names:
            print(f"  {name}")


def print_changes(title, keys, old, new):
    """The keys whose lines differ, with the lines that went and came."""
    changed = [(key, old(key), new(key)) for key in sorted(keys)]
    changed = [(key, before, after) for key, before, after in changed if before != after]
    if changed:
        print(f"{title} ({len(changed)})")
    for key, before, after in changed:
        print(f"  {key}")
        moved = sorted(before) == sorted(after)
        for line in ["  in another order"] if moved else difflib.ndiff(before, after):
            if moved or line[0] in "-+":
                print(f"    {line}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("old")
    parser.add_argument("new")
    arguments = parser.parse_args()
    old, new = load(arguments.old), load(arguments.new)
    print(f"{old['library']} {old['version']} -> {new['library']} {new['version']}")
    if (before := old.get("pattern_rules", 1)) != (after := new.get("pattern_rules", 1)):
        print(f"pattern rules {before} -> {after}")

    def types(mapping):
        return {model["model_type"] for model in mapping["classes"].values()}

    classes, conversions = old["classes"].keys() & new["classes"].keys(), old["conversions"].keys() & new["conversions"].keys()
    print_list("new model types", sorted(types(new) - types(old)))
    print_list("removed model types", sorted(types(old) - types(new)))
    print_list("new classes", sorted(new["classes"].keys() - classes))
    print_list("removed classes", sorted(old["classes"].keys() - classes))
    for title, mapping, keys in (("new transforms of", new, new["conversions"].keys() - conversions),
                                 ("removed transforms of", old, old["conversions"].keys() - conversions)):
        print_list(title, [f"{key}: {line}" for key in sorted(keys) for line in map(transform_line, transforms_of(mapping, key))])
    print_changes("changed transforms of", conversions, lambda key: list(map(transform_line, transforms_of(old, key))),
                  lambda key: list(map(transform_line, transforms_of(new, key))))
    print_changes("changed compositions of", classes, lambda key: class_lines(old["classes"][key]),
                  lambda key: class_lines(new["classes"][key]))


if __name__ == "__main__":
    main()
