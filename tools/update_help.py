#!/usr/bin/env python3
"""Put the help that the program prints now into docs/cli.md, where tests/cli/docs_test.py wants it.

    python3 tools/update_help.py build/release/quantport
"""
import re
import subprocess
import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parent.parent / "docs" / "cli.md"


def main():
    program = sys.argv[1]

    def printed(*command):
        return subprocess.run([program, *command, "--help"], capture_output=True, text=True, check=True).stdout.rstrip()

    text = DOCS.read_text(encoding="utf-8")
    blocks = re.findall(r"```\n.*?Usage: quantport.*?```", text, re.S)
    for block in blocks:
        block = block[block.rindex("```\n", 0, block.index("Usage: quantport")):]
        command = re.search(r"Usage: quantport (?:\[OPTIONS\] SUBCOMMAND|(\w+))", block).group(1)
        text = text.replace(block, f"```\n{printed(*([command] if command else []))}\n```")
    DOCS.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
