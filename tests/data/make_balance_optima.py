"""Make pyvirt/validation/balance_optima.csv: proven optima of the balance cases of C9.

    python tests/data/make_balance_optima.py [FIRST LAST [WORKERS]]

Needs ortools. Each case is solved by CP-SAT in a process of its own (tests/oracle/slowcluster/
optimum.py); rows that the file has already are kept. What is not proven within the time keeps
its bound, with a 0 in the column `proven`.
"""

import csv
import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np

from pyvirt.validation import balance_cases

HERE = Path(__file__).parent
SOLVER = HERE.parent / "oracle" / "slowcluster" / "optimum.py"
FILE = Path(balance_cases.__file__).with_name("balance_optima.csv")
SECONDS = 240.0
COLUMNS = ["seed", "moves", "checksum", "start", "best", "bound", "proven"]


def solve(seed: int, moves: int, workers: int) -> dict:
    cluster = balance_cases.balance_case(seed)
    vms, gib = cluster.vms, (1 << 30) // 4096
    case = {
        "hosts": balance_cases.HOSTS,
        "load": (vms.demand[0] // balance_cases.STEP_KHZ).tolist(),
        "memory": (vms.reservation[1] // gib).tolist(),
        "host": vms.host.tolist(),
        "capacity": int(cluster.hosts.capacity[0, 0]) // balance_cases.STEP_KHZ,
        "pages": int(cluster.hosts.capacity[1, 0]) // gib,
        "moves": moves,
        "seconds": SECONDS,
        "workers": workers,
    }
    done = subprocess.run(
        [sys.executable, str(SOLVER)], input=json.dumps(case), capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    found = json.loads(done.stdout)
    start = np.bincount(case["host"], weights=case["load"]).astype(np.int64)
    return {
        "seed": seed,
        "moves": moves,
        "checksum": balance_cases.checksum(cluster),
        "start": int((start**2).sum()),
        "best": found["squares"],
        "bound": found["bound"],
        "proven": int(found["status"] == "OPTIMAL"),
    } | {"seconds": found["seconds"]}


def main() -> None:
    first, last, workers = (int(x) for x in [*sys.argv[1:], "0", "100", "1"][:3])
    rows: dict[tuple[int, int], dict] = {}
    if FILE.exists():
        lines = [line for line in FILE.read_text().splitlines() if not line.startswith("#")]
        rows = {(int(r["seed"]), int(r["moves"])): r for r in csv.DictReader(lines)}
    for seed in range(first, last):
        for moves in (5, 8):
            if (seed, moves) in rows:
                continue
            row = solve(seed, moves, workers)
            print(f"{seed} {moves}: {row.pop('seconds'):.1f} s, {row}", flush=True)
            rows[seed, moves] = row
            with FILE.open("w", newline="") as file:
                file.write(
                    "# Sums of squares of the hosts' loads, in steps of STEP_KHZ, after at most\n"
                    f"# so many moves: OR-tools {version('ortools')}, CP-SAT, by\n"
                    "# tests/data/make_balance_optima.py\n"
                )
                table = csv.DictWriter(file, COLUMNS, lineterminator="\n")
                table.writeheader()
                table.writerows(rows[key] for key in sorted(rows))


if __name__ == "__main__":
    main()
