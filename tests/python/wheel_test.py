"""The wheel: what is in it, and that it works where nothing else is installed."""
import base64
import csv
import glob
import hashlib
import io
import os
import re
import subprocess
import sys
import unittest
import zipfile

from package import EXPORT, HUB, ROOT, PackageTest

WHEELS = os.environ["QUANTPORT_WHEELS"]
# Debug information would be 100 MB, and a second copy of the library 4 MB.
MOST_BYTES = 9_000_000


def wheel_path():
    (path,) = glob.glob(f"{WHEELS}/quantport-*.whl")
    return path


class ContentsTest(unittest.TestCase):
    def setUp(self):
        self.wheel = zipfile.ZipFile(wheel_path())
        self.addCleanup(self.wheel.close)
        self.names = self.wheel.namelist()

    def test_it_holds_the_package_its_extension_and_stubs_and_nothing_else(self):
        modules = {f"quantport/{os.path.relpath(path, f'{ROOT}/python/quantport')}"
                   for path in glob.glob(f"{ROOT}/python/quantport/**/*.py", recursive=True)}
        package = {name for name in self.names if name.startswith("quantport/")}
        extension = {name for name in package if name.endswith(".so")}
        self.assertEqual(len(extension), 1)
        self.assertEqual(package - extension, modules | {"quantport/_core.pyi", "quantport/py.typed"})
        rest = {re.sub(r"^quantport-[\d.]+\.dist-info/", "", name) for name in self.names if not name.startswith("quantport/")}
        self.assertEqual(rest, {"METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE", "licenses/NOTICE"})

    def test_the_record_has_every_file_with_its_digest(self):
        (record,) = [name for name in self.names if name.endswith("/RECORD")]
        rows = {name: (digest, size) for name, digest, size in csv.reader(io.StringIO(self.wheel.read(record).decode()))}
        self.assertEqual(set(rows), set(self.names))
        for name, (digest, size) in rows.items():
            if name == record:
                continue
            content = self.wheel.read(name)
            expected = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            self.assertEqual((digest, int(size)), (f"sha256={expected}", len(content)), name)

    def test_it_is_small_and_stripped(self):
        self.assertLess(sum(info.file_size for info in self.wheel.infolist()), MOST_BYTES)

    def test_metadata_names_version_license_and_python_and_requires_nothing(self):
        (name,) = [name for name in self.names if name.endswith("/METADATA")]
        metadata = self.wheel.read(name).decode()
        with open(f"{ROOT}/CMakeLists.txt", encoding="utf-8") as f:
            version = re.search(r"project\(quantport VERSION ([\d.]+)", f.read())[1]
        for line in (f"Version: {version}", "License-Expression: Apache-2.0", "Requires-Python: >=3.10"):
            self.assertIn(f"\n{line}\n", metadata)
        self.assertEqual([line for line in re.findall(r"Requires-Dist: (.*)", metadata) if "extra ==" not in line], [])


class InstallTest(PackageTest):
    def test_it_works_in_a_virtual_environment_with_nothing_else(self):
        python = self.path("venv", "bin", "python")
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", self.path("venv")], check=True)
        subprocess.run([sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-index", wheel_path()], check=True,
                       capture_output=True)
        code = ("import sys, quantport\n"
                "print(quantport.revert(sys.argv[1], sys.argv[2], reference=sys.argv[3]).output_tensors, quantport.__file__)")
        run = subprocess.run([python, "-I", "-c", code, EXPORT, self.path("out"), HUB], capture_output=True, text=True, check=True)
        self.assertEqual((run.stdout.split()[0], run.stderr), ("177", ""))
        self.assertTrue(run.stdout.split()[1].startswith(self.path("venv")))
        script = subprocess.run([self.path("venv", "bin", "quantport"), "verify", self.path("out"), "--reference", HUB],
                                capture_output=True, text=True)
        self.assertEqual(script.returncode, 0, script.stderr)


class TypesTest(PackageTest):
    SAMPLE = ("from pathlib import Path\n"
              "import quantport\n"
              "def names(folder: Path) -> list[str]:\n"
              "    return [module.name for module in quantport.inspect(folder).modules]\n"
              "def show(done: int, total: int) -> None:\n"
              "    print(done, total)\n"
              "report = quantport.revert('in', Path('out'), on_unsupported='keep-names', progress=show)\n"
              "kinds: list[str] = [problem.kind for problem in report.unsupported]\n")

    def mypy(self, *arguments):
        return subprocess.run([sys.executable, "-m", "mypy", "--config-file", f"{ROOT}/pyproject.toml", "--cache-dir", self.path("cache"), *arguments],
                              capture_output=True, text=True, cwd=self.folder)

    def test_the_package_and_its_use_are_typed(self):
        with open(self.path("use.py"), "w", encoding="utf-8") as f:
            f.write(self.SAMPLE)
        run = self.mypy("use.py")
        self.assertEqual(run.returncode, 0, run.stdout)
        run = self.mypy("-p", "quantport")
        self.assertEqual(run.returncode, 0, run.stdout)

    def test_a_wrong_option_is_found(self):
        with open(self.path("use.py"), "w", encoding="utf-8") as f:
            f.write(self.SAMPLE.replace("'keep-names'", "'keep'"))
        self.assertIn("on_unsupported", self.mypy("use.py").stdout)


if __name__ == "__main__":
    unittest.main()
