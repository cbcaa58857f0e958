"""Another package cimports `pyvirt.capi` from the installed one: the walker and the solver.

`consumer/` stands for that package. It is built from a folder of its own, so that Cython finds
the declarations where a stranger's build would: in the installed package. Its loop is a
``with nogil`` block, in which Cython compiles no call that needs the GIL.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CONSUMER = Path(__file__).with_name("consumer")
ELSEWHERE = os.environ | {"PYTHONSAFEPATH": "1"}

# A 4-level tree: one page at 0x1000, a 2 MiB page at 2 MiB, nothing at 4 MiB.
PROGRAM = """
import json
import sys
import threading

import numpy as np

sys.path.insert(0, ".")
import consumer
import pyvirt as pv

memory = pv.PhysicalMemory(1 << 20)
for pa, entry in {
    0x1000: 0x2003, 0x2000: 0x3003, 0x3000: 0x4003, 0x4008: 0x7003, 0x3008: 0x200083,
}.items():
    memory.write_u64(pa, entry)
space = pv.AddressSpace(memory, 0x1000)
vas = np.array([0x1234, 0x2345, 0x212345, 0x400000] * 10_000, dtype=np.uint64)
results = [np.zeros_like(vas) for _ in range(2)]
counts = [0, 0]

def work(i):
    counts[i] = consumer.translate(space, vas, results[i])

threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(json.dumps({
    "first": results[0][:4].tolist(),
    "counts": counts,
    "equal": all((r == space.translate(vas).pa).all() for r in results),
    "from": pv.__file__,
}))
"""


def run(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=ELSEWHERE,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The folder of the built consumer."""
    folder = tmp_path_factory.mktemp("elsewhere") / "consumer"
    shutil.copytree(CONSUMER, folder)
    run(folder, "setup.py", "build_ext", "--inplace")
    return folder


def test_another_package_walks_without_the_gil(built):
    found = json.loads(run(built, "-c", PROGRAM).splitlines()[-1])
    assert found["first"] == [0x7234, 0, 0x212345, 0]
    assert found["counts"] == [20_000, 20_000]
    assert found["equal"]


# A root with a pool of two clients and a client beside it; 300 to divide, then 30.
SHARES = """
import json
import sys

import numpy as np

sys.path.insert(0, ".")
import consumer
from pyvirt.entitlement import Client, Pool, PoolTrees

shares, floors, caps = np.array([2.0, 1, 1]), np.array([0.0, 2000, 0]), np.array([6e3, 6e3, 500])
out = np.zeros((2, 3))
done = consumer.share(shares, floors, caps, np.array([6000.0, 1000]), out)
units = np.zeros(3, dtype=np.int64)
equal, none = np.ones(3, dtype=np.int64), np.zeros(3, dtype=np.int64)
consumer.share_whole(equal, none, np.full(3, 2**63 - 1), 100, units)
inner = Pool("p", [Client("x", shares=1, demand=900), Client("y", shares=3, demand=900)], limit=100)
trees = PoolTrees(Pool("r", [inner, Client("z", shares=1, demand=900, reservation=50)]))
n = len(trees)
arrays = [np.zeros(n) for _ in range(4)]
floor, cap, given, level = arrays
cap[trees.clients], floor[trees.clients] = 900, [50, 0, 0]
nodes = (trees.first, trees.shares, trees.reservation, trees.limit)
found = [consumer.share_trees(*nodes, np.array([300.0]), *arrays), given.tolist()]
print(json.dumps({
    "done": done,
    "out": out.tolist(),
    "units": units.tolist(),
    "trees": found,
    "same": given.tolist() == trees.solve(300).tolist(),
    "short": consumer.share_trees(*nodes, np.array([30.0]), *arrays),
    "clients": trees.clients.tolist(),
}))
"""


def test_another_package_divides_without_the_gil(built):
    found = json.loads(run(built, "-c", SHARES).splitlines()[-1])
    assert found == {
        "done": 1,
        "out": [[3500.0, 2000.0, 500.0], [0.0, 1000.0, 0.0]],
        "units": [34, 33, 33],
        "trees": [-1, [300.0, 100.0, 200.0, 25.0, 75.0]],
        "same": True,
        "short": 0,
        "clients": [2, 3, 4],
    }
