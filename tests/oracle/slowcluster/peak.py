"""The least largest load that at most K migrations reach, by HiGHS; run as a process of its own.

Reads a case as `optimum.py` does, and prints ``{"status": ..., "peak": load, "bound": load}``.
"""

import json
import sys


def solve(case: dict) -> dict:
    import highspy

    load, memory, source = case["load"], case["memory"], case["host"]
    vms, hosts = range(len(load)), range(case["hosts"])
    model = highspy.Highs()
    model.silent()
    model.setOptionValue("threads", case["workers"])
    model.setOptionValue("time_limit", case["seconds"])
    # Exact: a gap below one unit of load would be enough, and the default stops earlier.
    model.setOptionValue("mip_rel_gap", 0.0)
    peak = model.addVariable(lb=0, ub=case["capacity"])
    moves = {(v, h): model.addBinary() for v in vms for h in hosts if h != source[v]}
    for v in vms:
        model.addConstr(sum(moves[v, h] for h in hosts if h != source[v]) <= 1)
    model.addConstr(sum(moves.values()) <= case["moves"])
    for h in hosts:

        def after(amount, h=h):
            here = sum(amount[v] for v in vms if source[v] == h)
            comes = sum(amount[v] * moves[v, h] for v in vms if source[v] != h)
            goes = sum(amount[v] * moves[v, d] for v, d in moves if source[v] == h)
            return here, comes - goes

        here, change = after(memory)
        model.addConstr(change <= case["pages"] - here)
        here, change = after(load)
        model.addConstr(change - peak <= -here)
    model.minimize(peak)
    info = model.getInfo()
    return {
        "status": model.modelStatusToString(model.getModelStatus()),
        "peak": round(model.getObjectiveValue()),
        "bound": info.mip_dual_bound,
    }


if __name__ == "__main__":
    print(json.dumps(solve(json.load(sys.stdin))))
