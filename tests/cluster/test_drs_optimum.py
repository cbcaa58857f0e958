"""Cases of C9 solved live: the stored optima by CP-SAT, the largest load by HiGHS."""

import csv
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pyvirt.cluster import Cluster, drs
from pyvirt.validation import balance_cases

SOLVERS = Path(__file__).parents[1] / "oracle" / "slowcluster"
STORED = Path(balance_cases.__file__).with_name("balance_optima.csv")

pytestmark = pytest.mark.slow


def needs(module: str) -> pytest.MarkDecorator:
    missing = importlib.util.find_spec(module) is None
    return pytest.mark.skipif(missing, reason=f"{module} is not installed (extra: solvers)")


def solved(solver: str, cluster: Cluster, moves: int) -> dict:
    gib = (1 << 30) // 4096
    case = {
        "hosts": balance_cases.HOSTS,
        "load": (cluster.vms.demand[0] // balance_cases.STEP_KHZ).tolist(),
        "memory": (cluster.vms.reservation[1] // gib).tolist(),
        "host": cluster.vms.host.tolist(),
        "capacity": int(cluster.hosts.capacity[0, 0]) // balance_cases.STEP_KHZ,
        "pages": int(cluster.hosts.capacity[1, 0]) // gib,
        "moves": moves,
        "seconds": 120.0,
        "workers": 1,
    }
    # A process of its own: solvers do not share one well.
    done = subprocess.run(
        [sys.executable, str(SOLVERS / solver)],
        input=json.dumps(case),
        capture_output=True,
        text=True,
        check=True,
    )
    # HiGHS greets on standard output.
    return json.loads(done.stdout.splitlines()[-1])


@needs("ortools")
@pytest.mark.parametrize("seed", [1, 17, 20, 36, 42])
def test_the_stored_optimum_is_proven_again(seed: int):
    lines = [line for line in STORED.read_text().splitlines() if not line.startswith("#")]
    (row,) = [r for r in csv.DictReader(lines) if int(r["seed"]) == seed and int(r["moves"]) == 5]
    found = solved("optimum.py", balance_cases.balance_case(seed), 5)
    assert found["status"] == "OPTIMAL"
    assert found["squares"] == int(row["best"])


@needs("highspy")
@pytest.mark.parametrize("seed", range(8))
def test_the_largest_load_is_near_the_least_that_can_be(seed: int):
    """Never below the least; and not far above, though what DRS lowers is the deviation."""
    cluster = balance_cases.balance_case(seed)
    best = solved("peak.py", cluster, 8)
    assert best["status"] == "Optimal"
    drs(cluster, level=5, max_moves=8, cost=None, min_goodness=0).apply()
    loads = np.bincount(
        cluster.vms.host,
        weights=cluster.vms.demand[0] // balance_cases.STEP_KHZ,
        minlength=balance_cases.HOSTS,
    )
    assert best["peak"] <= loads.max() <= 1.2 * best["peak"]
