"""Plug-in policies by name: what ``Scheduler(policy=...)`` knows beside the inlined ones."""

from __future__ import annotations

from collections.abc import Callable

from pyvirt._core.sched.plug import Plug
from pyvirt._core.sched.policies.bvt import Bvt
from pyvirt._core.sched.policies.cfs import Cfs
from pyvirt._core.sched.policies.fixed import FixedPriority
from pyvirt._core.sched.policies.hyperv import HyperV

__all__ = ["PLUGS", "Bvt", "Cfs", "FixedPriority", "HyperV", "Plug"]

PLUGS: dict[str, Callable[[], Plug]] = {
    "bvt": Bvt,
    "cfs": Cfs,
    "fixed": FixedPriority,
    "hyperv": HyperV,
}
