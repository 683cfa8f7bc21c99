"""An include goes only where the table of docs/design.md lets it, and the table there is the one here."""
import ast
import os
import re
import sys
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

# folder of src/ -> folders it may include, besides itself and the public headers
LAYERS = {
    "base": set(),
    "io": {"base"},
    "safetensors": {"base"},
    "checkpoint": {"base", "io", "safetensors"},
    "mapping": {"base"},
    "format": {"base"},
    "layout": {"base", "safetensors", "format"},
    "plan": {"base", "safetensors", "mapping", "format", "layout", "recipe", "dialect"},
    "recipe": {"base", "format"},
    "dialect": {"base", "mapping", "format"},
    "config": {"base", "mapping", "dialect"},
    "engine": {"base", "safetensors"},
    "journal": {"base", "io"},
    "quantize": {"base", "format"},
    "codec": {"base", "format", "quantize"},
    "exec": {"base", "format", "io", "plan", "journal", "quantize", "codec"},
    "load": {"base", "format", "io", "safetensors", "checkpoint", "mapping", "layout", "plan", "dialect", "recipe"},
    "verify": {"base", "format", "io", "safetensors", "checkpoint", "mapping", "layout", "plan", "dialect", "load", "engine"},
    "inspect": {"base", "io", "format", "safetensors", "checkpoint", "layout", "load", "verify"},
    "diff": {"base", "io", "safetensors", "checkpoint", "load"},
    "prepare": {"base", "io", "format", "safetensors", "checkpoint", "mapping", "layout", "recipe", "plan", "dialect", "config", "codec", "exec", "load", "verify"},
    "report": {"base", "format", "io", "mapping", "recipe", "plan", "quantize", "load"},
    "cli": set(),
}
# Third-party headers, and where they may stand.
THIRD_PARTY = {
    "pcre2.h": {"mapping/pattern.cc"},
    "simdjson.h": {"safetensors/json_text.h"},
    **{f"yaml-cpp/{name}.h": {"recipe/yaml.cc"} for name in ("anchor", "eventhandler", "exceptions", "mark", "parser", "yaml")},
    "nlohmann/json.hpp": {"base/json.h", "safetensors/header.cc", "safetensors/index.cc"},
    "zlib.h": {"journal/journal.cc"},
    "CLI/CLI.hpp": {"cli/commands.h", "cli/program.cc"},
}
# What the Python extension may include besides the standard library, the public headers and its own; and the packages that
# Python code may import. Only the standard library and quantport itself at the top of a module: the others may be missing.
BINDINGS_THIRD_PARTY = re.compile(r"nanobind/")
PYTHON_OPTIONAL = {"numpy", "torch", "transformers", "modelopt", "safetensors", "accelerate", "huggingface_hub"}
# Modules that are imported when `calibrate` is asked for, and by each other: these have torch at their top.
PYTHON_WITH_TORCH = {"calibration.py", "expert_containers.py"}
# Public headers without a third-party type; folders that may include the whole interface and not only values of it.
PUBLIC_VALUES = {"quantport/error.h", "quantport/dtype.h", "quantport/engine.h", "quantport/warning.h"}
KNOWS_INTERFACE = {"load", "verify", "prepare", "inspect", "diff", "report", "cli"}


def sources():
    for folder, _, files in os.walk(f"{ROOT}/src"):
        for file in files:
            if file.endswith((".cc", ".h")):
                yield os.path.relpath(f"{folder}/{file}", f"{ROOT}/src")


def includes(path, root="src"):
    with open(f"{ROOT}/{root}/{path}", encoding="utf-8") as f:
        return re.findall(r'^\s*#\s*include\s*["<]([^">]+)[">]', f.read(), re.M)


def imported(node):
    """The packages that an import statement names."""
    if isinstance(node, ast.Import):
        return {alias.name.split(".")[0] for alias in node.names}
    return {node.module.split(".")[0]} if node.level == 0 else set()


def wrong_imports(path):
    """Packages that the module imports and may not: unknown ones, and optional ones when it is imported itself."""
    with open(path, encoding="utf-8") as f:
        tree = ast.parse(f.read())
    always = set(sys.stdlib_module_names) | {"quantport"}
    top = {node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))}
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            needed = {"torch"} if os.path.basename(path) in PYTHON_WITH_TORCH else set()
            yield from imported(node) - always - (needed if node in top else PYTHON_OPTIONAL)


class LayeringTest(unittest.TestCase):
    def test_every_folder_has_a_row(self):
        folders = {path.split("/")[0] for path in sources() if "/" in path}
        self.assertEqual(folders, set(LAYERS))

    def test_rows_form_no_circle(self):
        done = set()
        while len(done) < len(LAYERS):
            ready = {layer for layer, uses in LAYERS.items() if layer not in done and uses <= done}
            self.assertTrue(ready, f"a circle among {set(LAYERS) - done}")
            done |= ready

    def test_includes_follow_the_table(self):
        wrong = []
        for path in sources():
            folder = path.split("/")[0]
            if "/" not in path:
                continue  # src/pipeline.cc may use every stage
            for include in includes(path):
                target = include.split("/")[0]
                if target in LAYERS and target != folder and target not in LAYERS[folder]:
                    wrong.append(f"{path} includes {include}")
                if include.startswith("quantport/") and include not in PUBLIC_VALUES and folder not in KNOWS_INTERFACE:
                    wrong.append(f"{path} includes {include}")
        self.assertEqual(wrong, [])

    def test_the_pipeline_does_not_know_the_command_line(self):
        for path in ("pipeline.cc", "quantport.cc"):
            self.assertFalse([i for i in includes(path) if i.startswith("cli/")])

    def test_bindings_use_the_public_interface_only(self):
        bindings = os.listdir(f"{ROOT}/python/bindings")
        wrong = []
        for file in bindings:
            for include in includes(file, "python/bindings"):
                if include in bindings or include.startswith("quantport/") or BINDINGS_THIRD_PARTY.match(include):
                    continue
                if "." in include and not include.startswith("sys/"):
                    wrong.append(f"{file} includes {include}")
        self.assertEqual(wrong, [])

    def test_the_python_package_imports_what_may_be_missing_only_where_it_is_used(self):
        wrong = []
        for folder, _, files in os.walk(f"{ROOT}/python/quantport"):
            for file in files:
                if file.endswith(".py"):
                    wrong += [f"{file} imports {name}" for name in wrong_imports(f"{folder}/{file}")]
        self.assertEqual(wrong, [])

    def test_third_party_headers_stay_in_their_files(self):
        wrong = [f"{path} includes {include}" for path in sources() for include in includes(path)
                 if include in THIRD_PARTY and path not in THIRD_PARTY[include]]
        self.assertEqual(wrong, [])

    def test_public_headers_use_the_standard_library_and_each_other_only(self):
        for file in os.listdir(f"{ROOT}/include/quantport"):
            for include in includes(file, "include/quantport"):
                self.assertTrue(include.startswith("quantport/") or "/" not in include and "." not in include,
                                f"{file} includes {include}")

    def test_the_table_is_the_documented_one(self):
        with open(f"{ROOT}/docs/design.md", encoding="utf-8") as f:
            rows = re.findall(r"^\| `src/(\w+)` \|[^|]*\| ([^|]*)\|$", f.read(), re.M)
        documented = {name: set(re.findall(r"\b(" + "|".join(LAYERS) + r")\b", uses)) for name, uses in rows}
        self.assertEqual(documented, LAYERS)


if __name__ == "__main__":
    unittest.main()
