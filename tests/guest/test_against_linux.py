"""Page faults of the model against those of the Linux that runs the test.

Each scenario runs in a new process, once with 64 pages and once with 320, and asks the kernel how
many minor faults it took (getrusage); the interpreter's own faults drop out of the difference.
Reads of files are not among them: kernels that keep files in large folios map more at once.
"""

import os
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import pyvirt as pv
from pyvirt.traces import Op

PAGE, FEW, MANY = 4096, 64, 320
# of the 256 pages in the difference, this many faults may be the interpreter's
NOISE = 6

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")

PROGRAM = """
import mmap, os, resource, sys
count, path = int(sys.argv[1]), sys.argv[2]
PRIVATE = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def area():
    m = mmap.mmap(-1, count * 4096, flags=PRIVATE)
    m.madvise(mmap.MADV_NOHUGEPAGE)
    return m
def write(m, value=1):
    for i in range(0, count * 4096, 4096):
        m[i] = value
def read(m):
    for i in range(0, count * 4096, 4096):
        m[i]
def measured(action, *args):
    before = faults()
    action(*args)
    return faults() - before
def in_child(action, *args):
    near, far = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(far, str(measured(action, *args)).encode())
        os._exit(0)
    answer = int(os.read(near, 20))
    os.waitpid(pid, 0)
    return answer
faults(); measured(read, area())
"""

SCENARIOS = {
    "write": "print(measured(write, area()))",
    "read": "print(measured(read, area()))",
    "write after read": "m = area(); read(m); print(measured(write, m))",
    "write after write": "m = area(); write(m); print(measured(write, m))",
    "child writes": "m = area(); write(m); print(in_child(write, m))",
    "child reads": "m = area(); write(m); print(in_child(read, m))",
    "parent writes after its child": (
        "m = area(); write(m); in_child(write, m); print(measured(write, m))"
    ),
    "unmapped and mapped again": "m = area(); write(m); m.close(); print(measured(write, area()))",
    "file written": (
        "f = os.open(path, os.O_RDWR); os.pread(f, count * 4096, 0); "
        "m = mmap.mmap(f, count * 4096, flags=mmap.MAP_PRIVATE, "
        "prot=mmap.PROT_READ | mmap.PROT_WRITE); print(measured(write, m))"
    ),
}


def of_linux(name: str, count: int, path: Path) -> int:
    command = [sys.executable, "-c", PROGRAM + SCENARIOS[name], str(count), str(path)]
    # A sanitizer that watches the tests would take faults of its own there.
    plain = {k: v for k, v in os.environ.items() if k not in ("LD_PRELOAD", "PYTHONMALLOC")}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=plain)
    return int(done.stdout)


def of_model(name: str, count: int) -> int:
    system = pv.GuestOS(pv.PhysicalMemory("64MiB"))
    process = system.spawn()
    pages = PAGE * np.arange(count)
    if name.startswith("file"):
        file = system.file(count)
        other = system.spawn()
        at = system.mmap(other, count * PAGE, file=file)
        system.touch(other, at + pages)  # the file is in memory then
        at = system.mmap(process, count * PAGE, file=file)
        return system.touch(process, at + pages, Op.STORE)
    at = system.mmap(process, count * PAGE)
    if name in ("write", "read"):
        return system.touch(process, at + pages, Op.STORE if name == "write" else Op.LOAD)
    if name == "write after read":
        system.touch(process, at + pages)
        return system.touch(process, at + pages, Op.STORE)
    system.touch(process, at + pages, Op.STORE)
    if name == "write after write":
        return system.touch(process, at + pages, Op.STORE)
    if name.startswith("unmapped"):
        system.munmap(process, at, count * PAGE)
        return system.touch(process, system.mmap(process, count * PAGE) + pages, Op.STORE)
    child = system.fork(process)
    op = Op.LOAD if name == "child reads" else Op.STORE
    answer = system.touch(child, at + pages, op)
    if name.startswith("child"):
        return answer
    system.exit(child)
    return system.touch(process, at + pages, Op.STORE)


@pytest.mark.parametrize("name", SCENARIOS)
def test_faults(name, tmp_path):
    path = tmp_path / "pages"
    path.write_bytes(bytes(MANY * PAGE))
    if of_linux("write", FEW, path) < FEW:
        pytest.skip("this kernel does not count faults")
    differences = [of_linux(name, MANY, path) - of_linux(name, FEW, path) for _ in range(3)]
    linux = statistics.median(differences)
    model = of_model(name, MANY) - of_model(name, FEW)
    assert abs(linux - model) <= NOISE, differences
