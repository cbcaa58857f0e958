"""Cut the event programs to the shortest one of each kind.

    python cut_programs.py PROGRAMS_DIRECTORY OUTPUT_DIRECTORY

The kind of a program is its name without the number. All files keep their names, columns and rows
of the programs kept.
"""

import csv
import lzma
import sys
from pathlib import Path

FILES = ("programs.csv", "counts.csv", "ops.csv.xz", "init.csv.xz", "results.csv.xz")


def shortest(folder):
    """Names of the programs to keep."""
    best = {}
    with (folder / "programs.csv").open() as lines:
        for row in csv.DictReader(lines):
            kind = row["program"].rstrip("0123456789")
            best[kind] = min(best.get(kind, (1 << 30, "")), (int(row["ops"]), row["program"]))
    return {name for _, name in best.values()}


def main(folder, output):
    folder, output = Path(folder), Path(output)
    keep = shortest(folder)
    for name in FILES:
        opened = lzma.open if name.endswith(".xz") else open
        with opened(folder / name, "rt") as lines:
            header, *rows = lines
        kept = header + "".join(row for row in rows if row.split(",", 1)[0] in keep)
        if name.endswith(".xz"):
            packed = lzma.compress(kept.encode(), preset=9 | lzma.PRESET_EXTREME)
            (output / name).write_bytes(packed)
        else:
            (output / name).write_text(kept)


if __name__ == "__main__":
    main(*sys.argv[1:])
