"""Which modules the entries of a config file speak of, read as inference engines read them."""
import fnmatch
import re


def matched(entry, modules):
    """An exact name with what lies below it, a glob over whole names, or "re:" and a pattern from the start on."""
    if entry.startswith("re:"):
        pattern = re.compile(entry[3:])
        return {m for m in modules if pattern.match(m)}
    if any(c in entry for c in "*?["):
        return {m for m in modules if fnmatch.fnmatchcase(m, entry)}
    return {m for m in modules if f"{m}.".startswith(f"{entry}.")}


def all_matched(entries, modules):
    return {m for entry in entries for m in matched(entry, modules)}
