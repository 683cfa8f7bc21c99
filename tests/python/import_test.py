"""What `import quantport` gives and needs."""
import os
import subprocess
import sys
import unittest

import quantport

PROGRAM = os.environ["QUANTPORT"]


class ImportTest(unittest.TestCase):
    def test_the_version_is_that_of_the_program(self):
        printed = subprocess.run([PROGRAM, "--version"], capture_output=True, text=True, check=True).stdout
        self.assertEqual(printed.strip(), quantport.__version__)

    def test_importing_needs_neither_numpy_nor_torch_nor_transformers(self):
        blocked = ("import sys\n"
                   "for name in ('numpy', 'torch', 'transformers', 'modelopt', 'safetensors', 'tqdm'): sys.modules[name] = None\n"
                   "import quantport\n"
                   "print(quantport.__version__)\n")
        run = subprocess.run([sys.executable, "-c", blocked], capture_output=True, text=True)
        self.assertEqual((run.stdout.strip(), run.stderr), (quantport.__version__, ""))


if __name__ == "__main__":
    unittest.main()
