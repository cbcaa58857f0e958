"""Plug-in policies by name: what ``Scheduler(policy=...)`` knows beside the inlined ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pyvirt._core.sched.native import (
    CPU_RECORD,
    PLUG_RECORD,
    SCHED_RECORD,
    VM_RECORD,
    WORLD_RECORD,
    NativePolicy,
)
from pyvirt._core.sched.plug import Plug
from pyvirt._core.sched.policies.credit import Credit
from pyvirt._core.sched.policies.credit2 import Credit2
from pyvirt._core.sched.policies.fixed import FixedPriority
from pyvirt._core.sched.policies.rtds import Rtds
from pyvirt._core.sched.python import PythonPolicy
from pyvirt.sched.esx import Esx

__all__ = [
    "CPU_RECORD",
    "PLUGS",
    "PLUG_RECORD",
    "SCHED_RECORD",
    "VM_RECORD",
    "WORLD_RECORD",
    "Credit",
    "Credit2",
    "Esx",
    "FixedPriority",
    "NativePolicy",
    "Plug",
    "PythonPolicy",
    "Rtds",
    "get_include",
]

PLUGS: dict[str, Callable[[], Plug]] = {
    "fixed": FixedPriority,
    "esx": Esx,
    "credit": Credit,
    "credit2": Credit2,
    "rtds": Rtds,
}


def get_include() -> str:
    """Give the folder of the C headers ``pyvirt/sched.h`` and ``pyvirt/ordered.h``."""
    return str(Path(__file__).resolve().parents[1] / "include")
