"""Policies from outside: C by address and by capsule, Cython by cimport, Numba; all alike."""

import ctypes
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import pyvirt.sched as ps
from pyvirt._core.sched.native import STRETCH_RECORD, TURN_RECORD
from pyvirt.errors import InvalidTypeError, InvalidValueError, PolicyError

POLICIES = Path(__file__).parents[2] / "docs" / "guide" / "policies"
# A wheel is tested without the documentation beside it.
if not POLICIES.exists():
    pytest.skip("the examples are not here", allow_module_level=True)
COMPILER = shutil.which("cc")
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="there is no C compiler")

# What the header says of each structure, to compare with what the engine has.
PROBE = """
#include <pyvirt/sched.h>
#include <pyvirt/turns.h>
#include <pyvirt/ordered.h>
#include <pyvirt/winner.h>
#define AT(record, field) offsetof(pyvirt_##record, field)
"""
STRUCTURES = {
    "sched": (ps.SCHED_RECORD, False),
    "world": (ps.WORLD_RECORD, True),
    "cpu": (ps.CPU_RECORD, True),
    "vm": (ps.VM_RECORD, True),
    "plug": (ps.PLUG_RECORD, True),
    "turn": (TURN_RECORD, True),
    "stretch": (STRETCH_RECORD, True),
}


def build(source: Path, folder: Path) -> ctypes.CDLL:
    library = folder / (source.stem + ".so")
    include = ps.get_include()
    subprocess.run(
        [COMPILER, "-O2", "-Wall", "-Wextra", "-Werror", "-std=c99", "-shared", "-fPIC"]
        + ["-I", include, str(source), "-o", str(library)],
        check=True,
    )
    return ctypes.CDLL(str(library))


def capsule(library: ctypes.CDLL, name: bytes = b"pyvirt.sched.plug") -> object:
    make = ctypes.pythonapi.PyCapsule_New
    make.restype = ctypes.py_object
    make.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
    return make(ctypes.addressof(ctypes.c_char.in_dll(library, "stride")), name, None)


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return build(POLICIES / "stride.c", tmp_path_factory.mktemp("c"))


@pytest.fixture(scope="module")
def numba_stride():
    sys.path.insert(0, str(POLICIES))
    try:
        from jitstride import jit_stride
    finally:
        sys.path.remove(str(POLICIES))
    return jit_stride


def history(policy) -> bytes:
    """What a mixed load does under a policy."""
    host = ps.Scheduler(cpus=3, policy=policy, quantum_ns=1000, rng=3)
    for weight in (1, 2, 3, 5):
        host.add(weight=weight)
    host.add(weight=2, affinity=[1])
    host.add(ps.Poisson(work_ns=300, gap_ns=900), weight=4, limit=(400, 2000))
    host.add_vm(3, ps.OnOff(500, 700), weight=9, affinity=[0, 2])
    host.run(100_000)
    host.block(1)
    host.set_weight(3, 1)
    host.run(150_000)
    host.wake(1)
    host.set_affinity(0, [2])
    host.remove(2)
    host.run(300_000)
    rows = host.counters()
    assert (rows["run"] + rows["rdy"] + rows["mlmtd"] + rows["wait"] == rows["elapsed"]).all()
    return rows.tobytes() + host.cpu_counters().tobytes()


def steady(policy) -> bytes:
    """What always running worlds do, whose timeslices end one after the other."""
    host = ps.Scheduler(cpus=3, policy=policy, quantum_ns=1000)
    for weight in (1, 2, 3, 4, 3):
        host.add(weight=weight)
    host.add(weight=2, slice_ns=300)
    host.run(150_000)
    host.remove(3)
    host.run(300_000)
    assert (host.counters()["switches"] > 10).all()
    return host.counters().tobytes() + host.cpu_counters().tobytes()


class Stride(ps.PythonPolicy):
    """The same in Python."""

    def __init__(self):
        self.passed, self.ready, self.last = {}, [], 0

    def add(self, id):
        self.passed[id] = 0

    def enqueue(self, id, why):
        if why not in ("slice", "preempt"):
            self.passed[id] = max(self.passed[id], self.last)
        self.ready.append(id)
        if why != "slice":
            for cpu in range(self.cpu_count):
                idle = self.running(cpu) is None and not self.asked(cpu)
                if idle and self.allowed(id, cpu):
                    self.ask(cpu)
                    return

    def dequeue(self, id):
        self.ready.remove(id)

    def charge(self, id, dt):
        self.passed[id] += dt * 1024 // self.weight(id)

    def pick(self, cpu):
        able = [(self.passed[id], id) for id in self.ready if self.allowed(id, cpu)]
        if not able:
            return None
        self.last, id = min(able)
        self.ready.remove(id)
        return id


@pytest.fixture(scope="module")
def expected():
    return history(Stride())


@pytest.fixture(scope="module")
def expected_steady():
    return steady(Stride())


@needs_compiler
def test_c_by_capsule(library, expected, expected_steady):
    policy = ps.NativePolicy("stride", capsule(library))
    assert history(policy) == expected
    assert history(policy) == expected  # the table is a value: another scheduler may use it
    assert steady(policy) == expected_steady


@needs_compiler
@pytest.mark.parametrize("more", [["requeue", "turns"], ["turns"], ["requeue"], []])
def test_c_by_addresses(library, expected, expected_steady, more):
    names = ["add", "change", "enqueue", "dequeue", "charge", "pick", "timeslice", "stopped"]
    hooks = {
        name: ctypes.cast(getattr(library, f"stride_{name}"), ctypes.c_void_p).value
        for name in names + more
    }
    own = np.zeros(1, np.dtype([("now", "<i8"), ("base", "<i8")]))
    world = np.dtype([("passed", "<i8"), ("step", "<i8"), ("ahead", "<u8")])
    policy = ps.NativePolicy("stride", hooks, own=own, world=world, trees=1)
    assert history(policy) == expected
    assert steady(policy) == expected_steady


def test_numba(numba_stride, expected, expected_steady):
    assert history(numba_stride()) == expected
    assert steady(numba_stride()) == expected_steady


@needs_compiler
def test_cython_by_cimport(tmp_path, expected, expected_steady):
    shutil.copy(POLICIES / "cystride.pyx", tmp_path)
    (tmp_path / "setup.py").write_text(
        "from Cython.Build import cythonize\n"
        "from setuptools import Extension, setup\n"
        f'cystride = Extension("cystride", ["cystride.pyx"], include_dirs=[{ps.get_include()!r}])\n'
        'setup(name="cystride", ext_modules=cythonize([cystride]))\n'
    )
    done = subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", "--inplace"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    sys.path.insert(0, str(tmp_path))
    try:
        from cystride import CyStride
    finally:
        sys.path.remove(str(tmp_path))
    assert history(CyStride()) == expected
    assert steady(CyStride()) == expected_steady
    host = ps.Scheduler(policy=CyStride(), quantum_ns=10)
    host.add()
    host.add()
    host.run(100)
    copied = pickle.loads(pickle.dumps(host))
    copied.run(200)
    assert copied.counters()["run"].tolist() == [100, 100]


@needs_compiler
def test_the_header_says_what_the_engine_has(tmp_path):
    lines = [PROBE]
    for name, (dtype, whole) in STRUCTURES.items():
        fields = ", ".join(f"AT({name}, {field})" for field in dtype.names)
        size = f"sizeof(pyvirt_{name})" if whole else f"AT({name}, asking) + sizeof(int)"
        lines.append(f"const size_t probe_{name}[] = {{{fields}, {size}}};")
    source = tmp_path / "probe.c"
    source.write_text("\n".join(lines) + "\n")
    found = build(source, tmp_path)
    for name, (dtype, _) in STRUCTURES.items():
        count = len(dtype.names) + 1
        values = list((ctypes.c_size_t * count).in_dll(found, f"probe_{name}"))
        offsets = [dtype.fields[field][1] for field in dtype.names]
        assert dict(zip((*dtype.names, "size"), values, strict=True)) == dict(
            zip((*dtype.names, "size"), (*offsets, dtype.itemsize), strict=True)
        ), name


@needs_compiler
def test_policies_of_addresses_are_not_pickled_but_copied(library):
    import copy

    host = ps.Scheduler(policy=ps.NativePolicy("stride", capsule(library)), quantum_ns=10)
    host.add(weight=2)
    host.add(weight=1)
    host.run(50)
    twin = copy.copy(host)
    host.run(3000)
    twin.run(3000)
    assert twin.counters().tobytes() == host.counters().tobytes()
    with pytest.raises(InvalidTypeError, match="cannot be pickled"):
        pickle.dumps(host)


@needs_compiler
@pytest.mark.parametrize(
    ("error", "hooks", "options"),
    [
        (InvalidTypeError, None, {}),
        (InvalidTypeError, {"pick": "here"}, {}),
        (InvalidTypeError, {"pick": None}, {}),
        (InvalidValueError, {"pick": 0}, {}),
        (InvalidValueError, {"pick": 1 << 64}, {}),
        (InvalidValueError, {"choose": 1}, {}),
        (InvalidValueError, {"pick": 1}, {"world": -1}),
        (InvalidValueError, {"pick": 1}, {"world": 1 << 21}),
        (InvalidValueError, {"pick": 1}, {"trees": 17}),
    ],
)
def test_bad_hooks(error, hooks, options):
    with pytest.raises(error):
        ps.NativePolicy("mine", hooks, **options)


@needs_compiler
def test_capsules_of_another_name_are_refused(library):
    with pytest.raises(InvalidTypeError, match="capsule"):
        ps.NativePolicy("mine", capsule(library, b"numpy.random"))


def test_nonsense_from_machine_code_is_a_policy_error(numba_stride):
    from numba import cfunc

    from pyvirt.sched.jit import HOOKS

    @cfunc(HOOKS["pick"])
    def pick(s, cpu):
        return 5

    good = numba_stride()
    hooks = dict(good.hooks, pick=pick)
    host = ps.Scheduler(policy=ps.NativePolicy("mine", hooks, own=bytes(16), world=24, trees=1))
    with pytest.raises(PolicyError, match="no such world, got 5"):
        host.add()
