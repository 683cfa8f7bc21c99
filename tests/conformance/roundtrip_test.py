#!/usr/bin/env python3
"""Applies the mapping of every class with one to its hub names, and reverts the result again.

For each class, x being what transformers' own reversal makes of the class's tensors:

    load                       apply(x) is what transformers' own load makes of x, where that is the model's tensors again;
                               docs/round_trips.md lists the classes for which it has the same tensors under other names
    round trip, reference      revert(apply(x)) with x as reference is x, for every class
    round trip                 revert(apply(x)) is x, where transformers' own load of x gives the model's tensors again

Where it does not, docs/round_trips.md says which name goes wrong first, and why; the page is held to what is found here.

    roundtrip_test.py [--match REGEX] [-v] [--write]      exit status 1 where a class or the page differs
"""
import argparse
import sys
from concurrent.futures import ThreadPoolExecutor

from oracle import ROOT, Tally, cases, difference, gave_up, held_against, run, same_bytes, transformers

PAGE = f"{ROOT}/docs/round_trips.md"
LOSSES = f"""# Round trips that do not close

tests/conformance/roundtrip_test.py writes this page (`--write`) from transformers {transformers.__version__}, and fails where it is out of date. Each row
gives a class's first name in sorted order and out of how many, of layers, experts and blocks 0 and 1. With the hub checkpoint as
`--reference`, revert undoes apply for every class.

## Where a reversed mapping does not load again

transformers reverses the model's names to the hub name here, and its own load of that name gives another parameter.

| class | wrong | hub name | what it becomes | why |
|---|---|---|---|---|
"""
APART = """
## Where apply gives another name than transformers' load

transformers holds every name against the parameters of the model: a hub name that the model has already stays where its new name
would be none of them, and a base model's prefix is added or stripped for each name by itself. `quantport apply` knows the composition
of a class and not its parameters. Reversed again, the hub name comes back.

| class | apart | hub name | transformers | apply |
|---|---|---|---|---|
"""


def describe(transforms):
    return ", then ".join(f"`{' | '.join(t._original_source_patterns)}` -> `{' | '.join(t._original_target_patterns)}`"
                          for t in transforms)


def first_loss(case, x, inputs, load):
    """A row of the page: the first hub name that transformers' own load does not bring back; None where all are."""
    parents = {}  # in-memory name -> hub names that should have become it
    for hub, (name, _) in load.renamed.items():
        parents.setdefault(name, []).append(hub)
    lost = {n for n, t in inputs.items() if n not in load.tensors or load.tensors[n].shape != t.shape
            or load.tensors[n].dtype != t.dtype or not same_bytes(load.tensors[n], t)}
    wrong = []
    for hub in sorted(x):
        name, fired = load.renamed[hub]
        if name not in case.names:
            wrong.append((hub, name, f"no parameter of the model: {describe(fired)}"))
        elif name in lost and len(parents[name]) > 1 and not any("*" in p for t in fired for p in t._original_source_patterns):
            wrong.append((hub, name, f"shared with `{next(h for h in sorted(parents[name]) if h != hub)}`: {describe(fired)}"))
        elif name in lost:
            wrong.append((hub, name, f"another tensor's place: {describe(fired)}"))
    if not wrong and not lost:
        return None
    if not wrong:
        wrong = [("", sorted(lost)[0], "never loaded")]
    return f"| {case.name} | {len(wrong)} | `{wrong[0][0]}` | `{wrong[0][1]}` | {wrong[0][2]} |"


def first_apart(case, x, load, applied):
    """A row of the page where apply gives the tensors of transformers' load under other names, else None."""
    names = sorted(set(load.tensors) - set(applied))
    others = {name: applied[name] for name in set(applied) - set(load.tensors)}
    if not names or difference({n: t for n, t in applied.items() if n not in others},
                               {n: t for n, t in load.tensors.items() if n not in names}):
        return None
    pairs = {name: [o for o, t in others.items() if difference({"": t}, {"": load.tensors[name]}) is None] for name in names}
    if len(others) != len(names) or any(len(found) != 1 for found in pairs.values()):
        return None
    hub = next((h for h in sorted(x) if load.renamed[h][0] == names[0]), "")
    return f"| {case.name} | {len(names)} | `{hub}` | `{names[0]}` | `{pairs[names[0]][0]}` |"


def check(case):
    """(results by kind, a row of the first table or None, one of the second or None)"""
    inputs = case.float_inputs()
    try:
        x = case.revert(inputs)
        load = case.load(x, inputs)
    except Exception as error:
        return {"load": gave_up(error)}, None, None
    loss, apart = first_loss(case, x, inputs, load), None
    applied = run("apply", case.config, x)
    if isinstance(applied, str):
        return {"load": applied}, loss, None
    results = {"round trip, reference": held_against(run("revert", case.config, applied, hub=x), x)}
    if loss is None:
        apart = first_apart(case, x, load, applied)
        results["load" if apart is None else "load, other names"] = None if apart else difference(applied, load.tensors)
        results["round trip"] = held_against(run("revert", case.config, applied), x)
        # transformers saves with the transforms that its load has used
        case.model._weight_conversions = [
            transform for transform, used in zip(case.model._weight_conversions, load.used()) if used]
        results["transformers' own round trip"] = difference(case.revert(load.tensors), x)
    return results, loss, apart


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--match", default="")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("-v", action="store_true")
    options = parser.parse_args()
    tally, losses, apart = Tally(options.v), [], []
    with ThreadPoolExecutor(2) as pool:
        for name, (results, lost, other) in pool.map(lambda case: (case.name, check(case)), cases(options.match)):
            tally.add(name, results)
            losses += [lost] if lost else []
            apart += [other] if other else []
    page = LOSSES + "".join(f"{row}\n" for row in losses) + APART + "".join(f"{row}\n" for row in apart)
    print("\n".join(losses + apart))
    failed = tally.failed()
    if options.write:
        with open(PAGE, "w", encoding="utf-8") as f:
            f.write(page)
    elif not options.match:
        with open(PAGE, encoding="utf-8") as f:
            if f.read() != page:
                print(f"{PAGE} is out of date: run with --write")
                failed = True
    return failed


if __name__ == "__main__":
    sys.exit(main())
