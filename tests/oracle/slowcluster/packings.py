"""Instances of packing, and OR-tools' CP-SAT, which proves how few bins they take.

Run by hand, each solve in a process of its own: ``python packings.py FILE`` writes them.
"""

import json
import subprocess
import sys

import numpy as np

VMS, FILL, LIMIT_S = 200, 17.7, 120


def instance(seed):
    """200 VMs of two resources, and bins of which 17.7 would do, were VMs fluid: so at least 18."""
    rng = np.random.default_rng(seed)
    cpu = np.rint(rng.lognormal(0, 0.6, VMS) * 1000).astype(np.int64)
    memory = rng.choice([1, 2, 4, 8, 16], VMS) * 256 + rng.integers(0, 256, VMS)
    size = np.stack([cpu, memory])
    capacity = np.ceil(size.sum(axis=1) / FILL).astype(np.int64)
    return size, capacity


def feasible(seed, bins, limit_s=LIMIT_S):
    """Whether an instance fits into so many bins: True, False, or None if not found out."""
    from ortools.sat.python import cp_model

    size, capacity = instance(seed)
    model = cp_model.CpModel()
    put = [[model.new_bool_var("") for _ in range(bins)] for _ in range(VMS)]
    for row in put:
        model.add_exactly_one(row)
    for b in range(bins):
        for r in (0, 1):
            model.add(sum(int(size[r, v]) * put[v][b] for v in range(VMS)) <= int(capacity[r]))
    largest = np.argsort(-(size / capacity[:, None]).sum(axis=0), kind="stable")
    for k, v in enumerate(largest[:bins]):  # bins are alike: the k-th goes into one of the first
        for b in range(k + 1, bins):
            model.add(put[v][b] == 0)
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = 1
    solver.parameters.max_time_in_seconds = limit_s
    status = solver.solve(model)
    if status in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return True
    return False if status == cp_model.INFEASIBLE else None


def solved_apart(seed, bins, limit_s=LIMIT_S):
    """The same in a process of its own."""
    code = f"import packings; print(packings.feasible({seed}, {bins}, {limit_s}))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=__file__.rpartition("/")[0],
        capture_output=True,
        text=True,
        timeout=limit_s + 60,
        check=True,
    )
    return {"True": True, "False": False, "None": None}[done.stdout.split()[-1]]


if __name__ == "__main__":
    made = {str(seed): solved_apart(seed, 18) for seed in range(100)}
    with open(sys.argv[1], "w", encoding="utf-8") as file:
        json.dump({"fits into 18": made}, file, indent=0)
