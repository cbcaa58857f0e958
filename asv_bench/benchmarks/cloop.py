"""Compile C loops with the flags of the package's own build; call those of ``cloop.c``."""

import ctypes
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Protocol

import numpy as np

HERE = Path(__file__).parent
FLAGS = ["-O3", "-g0", "-fPIC", "-shared"]


@cache
def library(source: str = "cloop.c") -> ctypes.CDLL:
    """Build and load C loops of this folder; a benchmark that finds no compiler is skipped."""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        raise NotImplementedError("no C compiler: cc is not on PATH")
    with tempfile.TemporaryDirectory() as folder:
        built = Path(folder, "loops.so")
        done = subprocess.run(
            [compiler, *FLAGS, HERE / source, "-o", built],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise NotImplementedError(f"{compiler} failed: {done.stderr.strip()[:200]}")
        return ctypes.CDLL(str(built))


class Results(Protocol):
    """The four arrays that a full walk writes, as `pyvirt.Translations` has them."""

    pa: np.ndarray
    code: np.ndarray
    page_shift: np.ndarray
    flags: np.ndarray


def _bind(name: str, ram: np.ndarray, roots: list[int], vas: np.ndarray, outs: list[np.ndarray]):
    arguments = [
        ctypes.c_void_p(ram.ctypes.data),
        *(ctypes.c_uint64(root) for root in roots),
        ctypes.c_void_p(vas.ctypes.data),
        ctypes.c_size_t(len(vas)),
        *(ctypes.c_void_p(out.ctypes.data) for out in outs),
    ]
    function = getattr(library(), name)
    function.restype = None
    keep = (ram, vas, outs)  # the pointers do not

    def call() -> None:
        function(*arguments)

    call.keep = keep
    return call


def walk(
    ram: np.ndarray, cr3: int, levels: int, vas: np.ndarray, out: Results
) -> Callable[[], None]:
    """A call that translates `vas` into `out`."""
    outs = [out.pa, out.code, out.page_shift, out.flags]
    return _bind(f"walk{levels}", ram, [cr3], vas, outs)


def pa_walk(
    ram: np.ndarray, cr3: int, levels: int, vas: np.ndarray, pa: np.ndarray
) -> Callable[[], None]:
    """A call that translates `vas` into physical addresses and nothing else."""
    return _bind(f"pa_walk{levels}", ram, [cr3], vas, [pa])


def walk_nested(
    ram: np.ndarray, guest_cr3: int, nested_root: int, vas: np.ndarray, out: Results
) -> Callable[[], None]:
    """A call that translates `vas` in two dimensions of four levels into `out`."""
    outs = [out.pa, out.code, out.page_shift, out.flags]
    return _bind("walk_nested", ram, [guest_cr3, nested_root], vas, outs)
