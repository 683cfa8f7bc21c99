#!/usr/bin/env python3
"""Records tests/golden/engines: what an engine makes of every cell of the table, so that tests need no engine.

    QUANTPORT=build/release/quantport .venv-engines/bin/python tests/engines/record.py vllm|sglang [--model NAME ...]
        [--recipe NAME ...] [--variant NAME] [--missing]

A file per model has its hub checkpoint (config.json, and name, dtype and shape of every tensor); a file per engine has
each cell's verdict and first fault. cells.py makes the cells; tests/cli/engines_test.py holds `verify --engine` to them.
"""
import argparse
import json
import os
import shutil
import tempfile

import cells
import harness
import models


def hub_of(name, scratch):
    """The model's golden as a checkpoint, and a calibration of it. The first time, the golden is made."""
    path = f"{cells.GOLDENS}/models/{name}.json"
    if not os.path.exists(path):
        models.save(name, f"{scratch}/saved")
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as file:
            json.dump(cells.read_model(f"{scratch}/saved"), file)
            file.write("\n")
    with open(path) as file:
        cells.write_model(json.load(file), f"{scratch}/hub")
    return f"{scratch}/hub", cells.write_calibration(f"{scratch}/hub", scratch)


def record(engine, name, recipe, hub, calibration, scratch, only):
    """What the engine makes of the recipe's output for the model, as it is and changed, or of the variant `only`."""
    folder = f"{scratch}/{recipe}"
    done = cells.quantize(hub, recipe, folder, calibration)
    if done.returncode != 0:
        return {"refused": done.stderr.strip().replace(scratch, "")[:200]}
    found = {}
    for variant, path in cells.variants(folder, recipe, scratch):
        if only not in (None, variant):
            continue
        report = harness.run(engine, path)
        found[variant] = {"verdict": report["verdict"]}
        if report["faults"]:
            found[variant]["fault"] = report["faults"][0].replace(scratch, "")[:200]
        print(name, recipe, variant, report["verdict"], (report["faults"] or [""])[0][:100], flush=True)
    shutil.rmtree(folder)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("engine", choices=("vllm", "sglang"))
    parser.add_argument("--model", action="append")
    parser.add_argument("--recipe", action="append")
    parser.add_argument("--missing", action="store_true", help="only what is not recorded yet")
    parser.add_argument("--variant", help="only this one of each cell; the others stay as they are")
    arguments = parser.parse_args()
    engine = harness.engine(arguments.engine)
    path = f"{cells.GOLDENS}/{arguments.engine}-{engine.version()}.json"
    table = {}
    if os.path.exists(path):
        with open(path) as file:
            table = json.load(file)
    with tempfile.TemporaryDirectory() as scratch:
        hubs = {}
        for recipe in arguments.recipe or cells.RECIPES:
            for name in arguments.model or list(models.MODELS):
                if arguments.missing and recipe in table.get(name, {}):
                    continue
                if name not in hubs:
                    os.makedirs(f"{scratch}/{name}")
                    hubs[name] = hub_of(name, f"{scratch}/{name}")
                found = record(engine, name, recipe, *hubs[name], f"{scratch}/{name}", arguments.variant)
                kept = table.get(name, {}).get(recipe, {}) if arguments.variant else {}
                table.setdefault(name, {})[recipe] = {**kept, **found}
                with open(path, "w") as file:
                    json.dump(table, file, indent=1, sort_keys=True)
                    file.write("\n")


if __name__ == "__main__":
    main()
