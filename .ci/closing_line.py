"""Print pytest's counts as ``N passed, N failed, N skipped``; fail if no test ran.

Usage: closing_line.py LOG, where LOG is what a pytest run printed.
"""

import re
import sys
from pathlib import Path

SUMMARY = re.compile(r"^=+ (.*\b(?:passed|failed|errors?|skipped|no tests ran)\b.*) in [\d.]+s")


def counts(text: str) -> dict[str, int]:
    """Read the last summary line of a pytest run."""
    text = re.sub(r"\x1b\[[\d;]*m", "", text)
    lines = [match[1] for match in map(SUMMARY.match, text.splitlines()) if match]
    found = re.findall(r"(\d+) (\w+)", lines[-1]) if lines else []
    return {name.removesuffix("s"): int(number) for number, name in found}


def main() -> int:
    """Print the line."""
    n = counts(Path(sys.argv[1]).read_text(encoding="utf-8", errors="replace"))
    passed = n.get("passed", 0) + n.get("xpassed", 0)
    failed = n.get("failed", 0) + n.get("error", 0)
    skipped = n.get("skipped", 0) + n.get("xfailed", 0)
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return 0 if passed and not failed else 1


if __name__ == "__main__":
    sys.exit(main())
