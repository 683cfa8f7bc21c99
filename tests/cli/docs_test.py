"""docs/cli.md shows the program's help as it is."""
import re
import unittest

from program import ROOT, run


class DocsTest(unittest.TestCase):
    def test_help_blocks_are_what_the_program_prints(self):
        with open(f"{ROOT}/docs/cli.md", encoding="utf-8") as f:
            blocks = [b.rstrip() for b in re.findall(r"```\n(.*?)```", f.read(), re.S)]
        for command in ([], ["revert"], ["apply"], ["repair"], ["recover"], ["quantize"], ["dequantize"], ["verify"], ["inspect"], ["diff"],
                        ["rules"]):
            help_text = run(*command, "--help").stdout.rstrip()
            self.assertIn(help_text, blocks, f"docs/cli.md is not what `quantport {' '.join(command)} --help` prints")

    def test_every_command_is_documented(self):
        commands = re.findall(r"^  (\w+)  ", run("--help").stdout.split("Subcommands:")[1], re.M)
        with open(f"{ROOT}/docs/cli.md", encoding="utf-8") as f:
            headings = re.findall(r"^## (\w+)$", f.read(), re.M)
        self.assertEqual(sorted(commands), sorted(headings))


if __name__ == "__main__":
    unittest.main()
