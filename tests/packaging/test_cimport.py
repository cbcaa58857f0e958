"""Another package cimports `pyvirt.capi` from the installed one and calls the walker.

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
