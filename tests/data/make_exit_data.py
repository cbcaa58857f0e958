"""Take the small part of the exit data that the tests carry.

    python tests/data/make_exit_data.py FOLDER

FOLDER holds the full ``guest-images``. Of the exit workloads one repetition of each is kept, of the
event programs the one with fewest operations of each kind.
"""

import csv
import lzma
import sys
from itertools import groupby
from pathlib import Path

HERE = Path(__file__).parent / "guest-images"


def read(path):
    opener = lzma.open if path.suffix == ".xz" else open
    with opener(path, "rt", newline="") as stream:
        return list(csv.DictReader(stream))


def write(path, rows):
    opener = lzma.open if path.suffix == ".xz" else open
    with opener(path, "wt", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def main(folder):
    source = Path(folder) / "guest-images"
    rows = read(source / "kvm_exits.csv")
    write(HERE / "kvm_exits.csv", [row for row in rows if row["rep"] == "0"])
    programs = read(source / "programs" / "programs.csv")
    kinds = groupby(programs, lambda row: row["program"].rstrip("0123456789"))
    chosen = [min(rows, key=lambda row: int(row["ops"])) for _, rows in kinds]
    names = {row["program"] for row in chosen}
    (HERE / "programs").mkdir(exist_ok=True)
    write(HERE / "programs" / "programs.csv", chosen)
    for name in ("ops.csv.xz", "init.csv.xz", "results.csv.xz", "counts.csv"):
        rows = [row for row in read(source / "programs" / name) if row["program"] in names]
        write(HERE / "programs" / name, rows)


if __name__ == "__main__":
    main(*sys.argv[1:])
