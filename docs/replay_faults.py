"""Print the tables of the guide: what each fault of the reference model does to days of PlanetLab.

python docs/replay_faults.py FOLDER DAY...
"""

import sys
from pathlib import Path

import numpy as np

from pyvirt.cluster import Corrections, ReplayResult, beloglazov, replay_faults

HEAD = "| repaired | energy kWh | migrations | SLATAH % | PDM % | shutdowns | VMs left |"


def row(name: str, result: ReplayResult) -> str:
    """Write the figures of a replay as a row of a Markdown table."""
    cells = [
        name if name in ("none", "every") else f"`{name}`",
        f"{result.energy_kwh:.3f}",
        f"{result.migrations:,}",
        f"{100 * result.slatah:.3f}",
        f"{100 * result.pdm:.4f}",
        f"{result.host_shutdowns:,}",
        f"{result.vms_left:,}",
    ]
    return f"| {' | '.join(cells)} |"


def tables(folder: Path, days: list[str]) -> str:
    """Write a table for THR and one for LR of each day; LRR differs from LR in one row."""
    weighted = Corrections(weighted_regression=True)
    lines = []
    for day in days:
        with np.load(folder / f"{day}.npz") as file:
            util = file["util"]
        for policy in ("thr", "lr"):
            found = replay_faults(util, policy, "mmt")
            rows = [row(name, result) for name, result in found.items()]
            if policy == "lr":
                lrr = beloglazov(util, "lrr", fidelity="corrected", corrections=weighted)
                rows.insert(2, row("weighted_regression", lrr).replace("` |", "`, LRR |"))
            rule = "|---|" + "---:|" * (HEAD.count("|") - 2)
            lines += [f"{day}, {policy.upper()} with MMT:", "", HEAD, rule, *rows, ""]
    return "\n".join(lines)


if __name__ == "__main__":
    print(tables(Path(sys.argv[1]), sys.argv[2:]))
