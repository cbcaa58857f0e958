"""Run all validation experiments and write the last section of docs/validation.md.

    PYVIRT_DATA=FOLDER python docs/validation_run.py

The exit code is 1 if an experiment failed.
"""

import os
import platform
import sys
import time
from pathlib import Path

import numpy as np

import pyvirt
from pyvirt.validation import Context, experiments
from pyvirt.validation.datasets import find_sets

PAGE = Path(__file__).with_name("validation.md")
MARK = "<!-- Everything from here to the end is written by docs/validation_run.py. -->\n"


def images(context: Context) -> list[str]:
    """Name the image files that are there."""
    names = [
        entry.facts[key]
        for entry in find_sets(context)
        for key in ("image", "full_image")
        if key in entry.facts and entry.path.with_name(entry.facts[key]).exists()
    ]
    return sorted(set(names))


def main() -> int:
    """Run, write and count."""
    context = Context.from_environment()
    began = time.perf_counter()
    outcomes = {id: chosen.run(context) for id, chosen in experiments().items()}
    seconds = time.perf_counter() - began
    lines = [
        "Written by `python docs/validation_run.py`, with `PYVIRT_DATA` naming a folder of these",
        "images: " + (", ".join(f"`{name}`" for name in images(context)) or "none") + ".",
        f"pyvirt {pyvirt.__version__}, NumPy {np.__version__}, Python {platform.python_version()},",
        f"{platform.system()} {platform.machine()}; {seconds:.0f} s, with opening the images.",
        "",
        "| id | experiment | verdict | cases | failed | expected | measured | remark |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for id, outcome in outcomes.items():
        same = outcome.verdict == "pass" and outcome.measured == outcome.expected
        cells = [
            id,
            experiments()[id].title,
            outcome.verdict,
            f"{outcome.cases:,}",
            f"{outcome.failed:,}",
            outcome.expected,
            "the same" if same else outcome.measured,
            outcome.reason,
        ]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    head, mark, _ = PAGE.read_text(encoding="utf-8").partition(MARK)
    if not mark:
        print(f"{PAGE} has no line {MARK}", file=sys.stderr)
        return 2
    PAGE.write_text(f"{head}{mark}\n" + "\n".join(lines) + "\n", encoding="utf-8")
    failed = sum(outcome.verdict == "fail" for outcome in outcomes.values())
    print(f"{len(outcomes)} experiments, {failed} failed; wrote {os.path.relpath(PAGE)}")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
