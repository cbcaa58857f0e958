"""The best balance that at most K migrations reach, by CP-SAT; run as a process of its own.

Reads a case as JSON from standard input and prints what was found as JSON:

    {"hosts": H, "load": [...], "memory": [...], "host": [...], "capacity": C, "pages": M,
     "moves": K, "seconds": limit, "workers": n}

`load` and `memory` are of VMs, in whole small units, and hosts are equal. What is minimised is the
sum of the squares of the hosts' loads, which orders balances as the standard deviation does.
"""

import json
import sys
import time


def solve(case: dict) -> dict:
    from ortools.sat.python import cp_model

    load, memory, source = case["load"], case["memory"], case["host"]
    vms, hosts = range(len(load)), range(case["hosts"])
    model = cp_model.CpModel()
    moves = {(v, h): model.new_bool_var("") for v in vms for h in hosts if h != source[v]}
    for v in vms:
        model.add_at_most_one(moves[v, h] for h in hosts if h != source[v])
    model.add(sum(moves.values()) <= case["moves"])
    squares = []
    for h in hosts:
        comes = [v for v in vms if source[v] != h]
        stays = [v for v in vms if source[v] == h]
        goes = [(v, d) for v, d in moves if source[v] == h]

        def after(amount, h=h, comes=comes, stays=stays, goes=goes):
            here = sum(amount[v] for v in stays) + sum(amount[v] * moves[v, h] for v in comes)
            return here - sum(amount[v] * moves[v, d] for v, d in goes)

        model.add(after(memory) <= case["pages"])
        total = model.new_int_var(0, case["capacity"], "")
        model.add(total == after(load))
        square = model.new_int_var(0, case["capacity"] ** 2, "")
        model.add_multiplication_equality(square, [total, total])
        squares.append(square)
    model.minimize(sum(squares))
    solver = cp_model.CpSolver()
    solver.parameters.max_time_in_seconds = case["seconds"]
    solver.parameters.num_workers = case["workers"]
    start = time.perf_counter()
    status = solver.solve(model)
    return {
        "status": solver.status_name(status),
        "squares": round(solver.objective_value),
        "bound": round(solver.best_objective_bound),
        "moves": [[v, d] for (v, d), moved in moves.items() if solver.value(moved)],
        "seconds": time.perf_counter() - start,
    }


if __name__ == "__main__":
    print(json.dumps(solve(json.load(sys.stdin))))
