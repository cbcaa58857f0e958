"""The solver called by Numba's kernels, from C and by address, and what they get."""

import ctypes
import doctest
import importlib
import json
import os
import shutil
import subprocess
import sys
from math import inf

import numpy as np
import pytest

import pyvirt.sched as ps
from pyvirt._core.solvers import SCRATCH_BYTES
from pyvirt._core.waterfill import divide
from pyvirt._core.waterwhole import divide_whole
from pyvirt.entitlement import Client, Pool, PoolTrees, addresses, capsule

COMPILER = shutil.which("cc") or shutil.which("gcc")
NO_CAP = 2**63 - 1

# The least that another program would write; a new process must find the kernel in the cache.
KERNEL = """
import json
import sys

import numpy as np
from numba import njit, prange

from pyvirt.entitlement import addresses
from pyvirt.entitlement.jit import SCRATCH, divide


@njit(cache=True, nogil=True)
def one(solver, shares, floors, caps, amount, out):
    return divide(solver, shares, floors, caps, amount, out, np.zeros(SCRATCH * len(shares)))


@njit(cache=True, parallel=True)
def many(solver, shares, floors, caps, amounts, out):
    for i in prange(len(amounts)):
        one(solver, shares, floors, caps, amounts[i], out[i])


def main():
    solver = addresses()["divide"]
    shares, caps = np.array([3.0, 2.0, 1.0]), np.array([100.0, 500.0, np.inf])
    floors = np.array([0.0, 0.0, 150.0])
    out = np.zeros((50, 3))
    many(solver, shares, floors, caps, np.arange(200.0, 700.0, 10.0), out)
    status, level = one(solver, shares, floors, caps, 650.0, out[49])
    hits = [sum(f.stats.cache_hits.values()) for f in (one, many)]
    print(json.dumps([hits, out.tolist(), status, level]))


main()
"""


def random_clients(rng, n):
    shares = rng.choice([0.0, 1.0, 4.0, 1000.0], n)
    floors = rng.integers(0, 50, n).astype(float)
    caps = floors + rng.choice([0.0, 10.0, 100.0, inf], n)
    return shares, floors, caps


def test_kernels_get_what_python_gets_and_are_cached(tmp_path):
    script = tmp_path / "kernel.py"
    script.write_text(KERNEL)
    environment = os.environ | {"PYTHONWARNINGS": "error", "NUMBA_NUM_THREADS": "2"}
    runs = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, script],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        runs.append(json.loads(done.stdout))
    assert [hits for hits, *_ in runs] == [[0, 0], [1, 1]]
    assert runs[0][1:] == runs[1][1:]
    _, out, status, level = runs[1]
    shares, floors, caps = [3.0, 2.0, 1.0], [0.0, 0.0, 150.0], [100.0, 500.0, inf]
    for amount, row in zip(range(200, 690, 10), out, strict=False):
        assert row == divide(shares, floors, caps, float(amount))[0].tolist()
    assert (status, level) == (0, divide(shares, floors, caps, 650.0)[1])


def test_random_divisions_by_numba():
    from pyvirt.entitlement import jit

    rng = np.random.default_rng(5)
    solver, whole = addresses()["divide"], addresses()["divide_whole"]
    seen = set()
    for _ in range(300):
        n = int(rng.integers(1, 12))
        shares, floors, caps = random_clients(rng, n)
        amount = float(rng.integers(0, 600))
        out, scratch = np.empty(n), np.empty(jit.SCRATCH * n)
        status, level = jit.divide(solver, shares, floors, caps, amount, out, scratch)
        want, want_level, scaled = divide(shares, floors, caps, amount)
        assert out.tolist() == want.tolist()
        assert (level, status) == (want_level, int(scaled))
        seen.add(status)
        ints = [np.minimum(x, 1e9).astype(np.int64) for x in (shares, floors, caps)]
        ints[2][np.isinf(caps)] = NO_CAP
        units = np.empty(n, dtype=np.int64)
        scaled = jit.divide_whole(whole, *ints, int(amount), units, scratch)
        want_units, want_scaled = divide_whole(*ints, int(amount))[:2]
        assert (units.tolist(), bool(scaled)) == (want_units.tolist(), want_scaled)
    assert seen == {0, 1}
    infinite = np.array([inf])
    status, _ = jit.divide(
        solver, np.ones(1), np.zeros(1), infinite, inf, np.empty(1), np.empty(jit.SCRATCH)
    )
    assert status == 2


def make_trees(rng):
    def pool(name, depth):
        children = [
            pool(f"{name}{i}", depth - 1)
            if depth and rng.random() < 0.5
            else Client(
                f"{name}{i}",
                shares=int(rng.integers(1, 9)),
                reservation=float(rng.integers(0, 20)),
                demand=float(rng.integers(0, 300)),
            )
            for i in range(int(rng.integers(1, 4)))
        ]
        return Pool(
            name,
            children,
            shares=int(rng.integers(1, 9)),
            reservation=float(rng.integers(0, 30)),
            limit=float(rng.choice([inf, 200.0])),
        )

    return PoolTrees([pool("a", 2), pool("b", 2)])


@pytest.mark.parametrize("seed", range(20))
def test_trees_by_numba(seed):
    from pyvirt.entitlement import jit

    rng = np.random.default_rng(seed)
    trees = make_trees(rng)
    n, at = len(trees), trees.clients
    floor, cap, given, level = (np.zeros(n) for _ in range(4))
    wanted = np.minimum(trees.demand, trees.limit[at])
    floor[at] = np.minimum(trees.reservation[at], trees.demand)
    cap[at] = np.maximum(wanted, floor[at])
    scratch = np.zeros(jit.SCRATCH * n)
    nodes = (trees.first, trees.shares, trees.reservation, trees.limit)
    for capacity in ([1000.0, 400.0], [1.0, 1.0]):
        both = np.array(capacity)
        status, where = jit.divide_trees(
            addresses()["divide_trees"], *nodes, both, True, floor, cap, given, level, scratch
        )
        want = trees.solve(both, overcommit="scale")
        assert given.tolist() == want.tolist()
        assert where == -1
        strict, where = jit.divide_trees(
            addresses()["divide_trees"], *nodes, both, False, floor, cap, given, level, scratch
        )
        # an overcommitted pool is named, and only then
        assert (where >= 0) == (status == 1) == (strict == 1)
        if where >= 0:
            below = slice(trees.first[where], trees.first[where + 1])
            assert floor[below].sum() > given[where]


def test_arrays_that_do_not_fit_are_refused():
    from numba.core.errors import TypingError

    from pyvirt.entitlement import jit

    solver = addresses()["divide"]
    ones, room = np.ones(4), np.empty(4 * jit.SCRATCH)
    with pytest.raises(ValueError, match="equally long"):
        jit.divide(solver, ones, ones[:3], ones, 4.0, np.empty(4), room)
    with pytest.raises(ValueError, match="scratch"):
        jit.divide(solver, ones, ones, ones, 4.0, np.empty(4), room[1:])
    with pytest.raises(TypingError):
        jit.divide(solver, ones, ones, ones, 4.0, np.empty(4, dtype=np.float32), room)
    with pytest.raises(TypingError):
        jit.divide(solver, np.ones(8)[::2], ones, ones, 4.0, np.empty(4), room)
    frozen = np.ones(4)
    frozen.flags.writeable = False
    with pytest.raises(TypingError):
        jit.divide(solver, ones, ones, ones, 4.0, frozen, room)
    jit.divide(solver, frozen, ones, ones, 4.0, np.empty(4), room)


@pytest.mark.parametrize("name", ["pyvirt.entitlement.jit", "pyvirt._core.solvers"])
def test_docstrings(name):
    found = doctest.testmod(importlib.import_module(name))
    assert found.attempted
    assert not found.failed


def test_by_ctypes():
    pointer = ctypes.POINTER(ctypes.c_double)
    kind = ctypes.CFUNCTYPE(
        ctypes.c_int, *[pointer] * 3, ctypes.c_int64, ctypes.c_double, *[pointer] * 2,
        ctypes.c_void_p,
    )  # fmt: skip
    function = kind(addresses()["divide"])
    rng = np.random.default_rng(6)
    clients = random_clients(rng, 40)
    out, scratch = np.empty(40), ctypes.create_string_buffer(40 * SCRATCH_BYTES)
    views = [array.ctypes.data_as(pointer) for array in (*clients, out)]
    assert function(*views[:3], 40, 2000.0, views[3], None, scratch) == 0
    assert out.tolist() == divide(*clients, 2000.0)[0].tolist()


PROGRAM = """
#include <pyvirt/entitlement.h>

_Static_assert(PYVIRT_SCRATCH_BYTES == SCRATCH, "scratch");

/* Who gets what of 6000: 3500, 2000 and 500. */
int three(const pyvirt_entitlement *solver, double *out, double *level)
{
    const double shares[] = {2000, 1000, 1000}, floors[] = {0, 2000, 0};
    const double caps[] = {6000, 6000, 500};
    double scratch[3 * PYVIRT_SCRATCH_BYTES / sizeof(double)];
    if (solver->version != 1 || solver->size < sizeof *solver)
        return -1;
    return solver->divide(shares, floors, caps, 3, 6000, out, level, scratch);
}

int whole(const pyvirt_entitlement *solver, int64_t *out)
{
    const int64_t shares[] = {1, 1, 1}, floors[] = {0, 0, 0};
    const int64_t caps[] = {INT64_MAX, INT64_MAX, INT64_MAX};
    double scratch[3 * PYVIRT_SCRATCH_BYTES / sizeof(double)];
    return solver->divide_whole(shares, floors, caps, 3, 100, out, scratch);
}

/* A pool with a limit of 100 and two clients, beside a client. */
int trees(const pyvirt_entitlement *solver, double *given, int64_t *where)
{
    const int64_t first[] = {1, 3, 5, 5, 5, 5};
    const double shares[] = {1, 1, 1, 3, 1}, reservation[] = {0, 0, 0, 0, 0};
    const double limit[] = {1e9, 100, 1e9, 1e9, 1e9}, capacity[] = {300};
    double floor[5] = {0}, cap[5] = {0, 0, 500, 500, 500}, level[5];
    double scratch[5 * PYVIRT_SCRATCH_BYTES / sizeof(double)];
    return solver->divide_trees(5, first, shares, reservation, limit, capacity, 0, floor, cap,
                                given, level, scratch, where);
}
"""


@pytest.mark.skipif(COMPILER is None, reason="no C compiler")
def test_from_c_by_the_capsule(tmp_path):
    source, library = tmp_path / "caller.c", tmp_path / "caller.so"
    source.write_text(PROGRAM)
    command = [COMPILER, "-Wall", "-Wextra", "-Werror", "-std=c11", "-shared", "-fPIC"]
    command += [f"-DSCRATCH={SCRATCH_BYTES}", "-I", ps.get_include(), str(source)]
    subprocess.run([*command, "-o", str(library)], check=True)
    caller = ctypes.CDLL(str(library))
    unpack = ctypes.pythonapi.PyCapsule_GetPointer
    unpack.restype, unpack.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    table = ctypes.c_void_p(unpack(capsule(), b"pyvirt.entitlement.v1"))
    out, level = (ctypes.c_double * 3)(), ctypes.c_double()
    assert caller.three(table, out, ctypes.byref(level)) == 0
    assert list(out) == [3500.0, 2000.0, 500.0]
    assert level.value == 1.75
    units = (ctypes.c_int64 * 3)()
    assert caller.whole(table, units) == 0
    assert list(units) == [34, 33, 33]
    given, where = (ctypes.c_double * 5)(), ctypes.c_int64()
    assert caller.trees(table, given, ctypes.byref(where)) == 0
    assert list(given) == [300.0, 100.0, 200.0, 75.0, 25.0]
    assert where.value == -1
    with pytest.raises(ValueError, match="incorrect name"):
        unpack(capsule(), b"pyvirt.entitlement.v2")
