"""Plug-in policies by name: what ``Scheduler(policy=...)`` knows beside the inlined ones."""

from __future__ import annotations

from collections.abc import Callable

from pyvirt._core.sched.plug import Plug
from pyvirt._core.sched.policies.fixed import FixedPriority
from pyvirt.sched.esx import Esx

__all__ = ["PLUGS", "Esx", "FixedPriority", "Plug"]

PLUGS: dict[str, Callable[[], Plug]] = {
    "fixed": FixedPriority,
    "esx": Esx,
}
