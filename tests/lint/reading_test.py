"""Checkpoints are read through src/io's ByteSource and Folder, so that they can be anywhere and tests can watch and fail every read."""
import os
import re
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

# Other ways to open or list files, or to ask for them.
OTHER_WAYS = re.compile(
    r"\bOpenForReading\b|\bReadTextFile\b|\bReadAll\b|\b(?:if|f)stream\b|\bf(?:re)?open\s*\(|::open(?:at)?\s*\(|\bmmap\s*\(|"
    r"\b(?:recursive_)?directory_iterator\b|\bopendir\b|"
    r"\b(?:fs|std::filesystem)::(?:exists|is_directory|is_regular_file|is_empty|file_size|last_write_time|canonical|status|symlink_status)\b")
# What implements reading, and what reads its own files back while it changes a folder.
FOLDERS = {"io", "journal"}
# The other files that may, and why.
ALLOWED = {
    ("load/load.cc", "ReadTextFile"): "the mapping is a file of the user's own",
    ("load/recipes.cc", "ReadTextFile"): "as are recipes",
    ("verify/engine.cc", "ReadTextFile"): "and facts about an engine",
    ("load/recipes.cc", "std::filesystem::is_regular_file"): "whose imports are looked for",
    ("pipeline.cc", "fs::exists"): "recovery looks for what is left of a change in place",
}


def uses():
    """(file below src/, what it uses) for every other way to read."""
    for folder, _, files in os.walk(f"{ROOT}/src"):
        for file in files:
            path = os.path.relpath(f"{folder}/{file}", f"{ROOT}/src")
            if not file.endswith((".cc", ".h")) or path.split("/")[0] in FOLDERS:
                continue
            with open(f"{folder}/{file}", encoding="utf-8") as f:
                code = re.sub(r"//[^\n]*", "", f.read())
            for use in OTHER_WAYS.findall(code):
                yield path, use


class ReadingTest(unittest.TestCase):
    def test_nothing_reads_files_past_the_seam(self):
        self.assertEqual(sorted(set(uses()) - set(ALLOWED)), [])

    def test_every_exception_is_needed(self):
        self.assertEqual(sorted(set(ALLOWED) - set(uses())), [])


if __name__ == "__main__":
    unittest.main()
