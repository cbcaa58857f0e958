"""Plug-in policies by name: what ``Scheduler(policy=...)`` knows beside the inlined ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pyvirt._core.sched.native import NativePolicy
from pyvirt._core.sched.plug import Plug
from pyvirt._core.sched.policies.fixed import FixedPriority
from pyvirt._core.sched.python import PythonPolicy
from pyvirt.sched.esx import Esx

__all__ = ["PLUGS", "Esx", "FixedPriority", "NativePolicy", "Plug", "PythonPolicy", "get_include"]

PLUGS: dict[str, Callable[[], Plug]] = {
    "fixed": FixedPriority,
    "esx": Esx,
}


def get_include() -> str:
    """Give the folder of the C headers ``pyvirt/sched.h`` and ``pyvirt/ordered.h``."""
    return str(Path(__file__).resolve().parents[1] / "include")
