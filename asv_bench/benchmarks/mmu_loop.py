"""Compile ``mmu_loop.c``, and drive it through ctypes: the bound for `pyvirt.MMU`."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .cloop import FLAGS
from .streams import Tables

SOURCE = Path(__file__).with_name("mmu_loop.c")
MODES = ["native", "nested", "tlb-only"]
POLICIES = ["mtf", "stamp", "select"]
BUILDS = {
    "plain": FLAGS,  # those of the package's own build
    "march=native": [*FLAGS, "-march=native"],
}

_POINTER = ctypes.c_void_p


class LoopCounts(NamedTuple):
    """What the loop counted since it was reset."""

    l1_hits: int
    l2_hits: int
    walks: int
    refs: int


@cache
def library(build: str = "plain") -> ctypes.CDLL:
    """Build and load the loops; a benchmark that finds no compiler is skipped."""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        raise NotImplementedError("no C compiler: cc is not on PATH")
    with tempfile.TemporaryDirectory() as folder:
        built = Path(folder, "mmu_loop.so")
        done = subprocess.run(
            [compiler, *BUILDS[build], SOURCE, "-o", built],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise NotImplementedError(f"{compiler} failed: {done.stderr.strip()[:200]}")
        loaded = ctypes.CDLL(str(built))
    loaded.mmu_new.restype = _POINTER
    loaded.mmu_reset.argtypes = [_POINTER, _POINTER, ctypes.c_uint64, ctypes.c_uint64]
    loaded.mmu_free.argtypes = [_POINTER]
    return loaded


class Loop:
    """One loop over the addresses `vas` into `pa` and `code`, from empty TLBs at each call."""

    def __init__(
        self,
        mode: str,
        policy: str,
        tables: Tables | None,
        vas: np.ndarray,
        pa: np.ndarray,
        code: np.ndarray,
        build: str = "plain",
    ) -> None:
        self._library = library(build)
        self._state = self._library.mmu_new()
        self._run = getattr(self._library, f"{mode.replace('-', '_')}_{policy}")
        self._run.restype = None
        self._run.argtypes = [_POINTER, _POINTER, ctypes.c_size_t, _POINTER, _POINTER]
        self._arguments = [vas.ctypes.data, len(vas), pa.ctypes.data, code.ctypes.data]
        self._keep = (tables, vas, pa, code)  # the pointers do not
        if tables is None:
            self._start = [None, 0, 0]
        else:
            self._start = [tables.flat.ctypes.data, tables.root, tables.host_root]

    def __call__(self) -> None:
        self._library.mmu_reset(self._state, *self._start)
        self._run(self._state, *self._arguments)

    def __del__(self) -> None:
        self._library.mmu_free(self._state)

    @property
    def counts(self) -> LoopCounts:
        """Of the last call."""
        return LoopCounts(*(ctypes.c_uint64 * 4).from_address(self._state))
