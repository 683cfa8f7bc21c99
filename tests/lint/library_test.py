"""The library never prints, exits or aborts, and no source file outgrows a reader."""
import os
import re
import subprocess
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
LIBRARY = os.environ.get("QUANTPORT_LIBRARY", f"{ROOT}/build/release/src/libquantport.a")

# What a library that prints or ends the process would need. std::terminate and abort are reached through the
# compiler's own exception tables, so calls are looked for in the sources instead.
PRINTING = re.compile(r"\b(?:_ZSt4cout|_ZSt4cerr|_ZSt4clog|printf|fprintf|vprintf|vfprintf|puts|putchar|fputs|perror|exit|_exit|quick_exit)\b"
                      r"|_ZN3fmt2v96vprint")
CALLS = re.compile(r"\b(?:std::)?(?:abort|terminate|exit|_exit|quick_exit)\s*\(|\bassert\s*\(|std::c(?:out|err|log)\b|fmt::print\b|\bf?printf\s*\(")
# What changes a file system. io/output_folder.h is what everyone else does it by, so that no write escapes the tests of lost
# ones.
CHANGES = re.compile(r"::(?:fsync|fdatasync|renameat2?|unlink(?:at)?|rmdir|mkdir(?:at)?|f?truncate|fallocate|pwritev?|symlink|link|f?chmod|f?chown)\s*\("
                     r"|\b(?:fs|filesystem)::(?:rename|remove|remove_all|create_\w+|resize_file|copy_file|permissions)\s*\(|\bstd::rename\b"
                     r"|\bstd::o?fstream\b|\bFile::(?:Create|CreateUnnamed|OpenForChange)\b|\bO_(?:WRONLY|RDWR|CREAT)\b")


class LibraryTest(unittest.TestCase):
    def test_no_object_refers_to_a_printing_or_exiting_function(self):
        listing = subprocess.run(["nm", "--undefined-only", LIBRARY], capture_output=True, text=True, check=True).stdout
        self.assertIn("pcre2_match", listing, "the listing is not that of the library")
        self.assertEqual(PRINTING.findall(listing), [])

    def test_no_source_of_the_library_prints_or_ends_the_process(self):
        found = []
        for folder, _, files in os.walk(f"{ROOT}/src"):
            if folder.endswith("/cli"):
                continue
            for file in files:
                with open(f"{folder}/{file}", encoding="utf-8") as f:
                    code = re.sub(r"//[^\n]*", "", f.read())
                found += [f"{file}: {call}" for call in CALLS.findall(code)]
        self.assertEqual(found, [])

    def test_only_io_changes_a_file_system(self):
        found, in_io = [], []
        for folder, _, files in os.walk(f"{ROOT}/src"):
            for file in files:
                with open(f"{folder}/{file}", encoding="utf-8") as f:
                    code = re.sub(r"//[^\n]*", "", f.read())
                calls = [f"{file}: {call}" for call in CHANGES.findall(code)]
                (in_io if os.path.relpath(folder, f"{ROOT}/src") == "io" else found).extend(calls)
        self.assertEqual(found, [])
        self.assertGreater(len(in_io), 15)

    def test_sources_stay_below_500_lines(self):
        long = []
        for root in ("src", "include", "python", "examples", "tests", "tools", "bench", "fuzz"):
            for folder, _, files in os.walk(f"{ROOT}/{root}"):
                for file in files:
                    if file.endswith((".cc", ".h", ".py")):
                        with open(f"{folder}/{file}", encoding="utf-8") as f:
                            lines = sum(1 for _ in f)
                        if lines > 500:
                            long.append((file, lines))
        self.assertEqual(long, [])


if __name__ == "__main__":
    unittest.main()
