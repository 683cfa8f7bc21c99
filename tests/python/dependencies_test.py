"""What building the package lacks is named, with where to get it."""
import os
import shutil
import subprocess
import sys
import unittest

from package import ROOT, PackageTest

PREFIX = f"{os.environ['QUANTPORT_WHEELS']}/../prefix"


class DependenciesTest(PackageTest):
    def configure(self, *arguments):
        """What CMake says of the extension's project."""
        cmake = shutil.which("cmake")
        run = subprocess.run([cmake, "-S", f"{ROOT}/python", "-B", self.path("build"), "-G", "Ninja", f"-Dquantport_ROOT={PREFIX}", *arguments],
                             capture_output=True, text=True, timeout=120)
        self.assertNotEqual(run.returncode, 0)
        return " ".join(run.stderr.split())

    def test_nanobind(self):
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", self.path("venv")], check=True)
        said = self.configure(f"-DPython_EXECUTABLE={self.path('venv', 'bin', 'python')}")
        self.assertIn("needs nanobind", said)
        self.assertIn("pip install", said)

    def test_headers_of_python(self):
        said = self.configure(f"-DPython_EXECUTABLE={sys.executable}", f"-DPython_INCLUDE_DIR={self.path('missing')}")
        self.assertIn("install the Debian package python3-dev", said)

    def test_the_library(self):
        said = self.configure(f"-Dquantport_ROOT={self.path('missing')}")
        self.assertIn("needs an installed quantport", said)


if __name__ == "__main__":
    unittest.main()
