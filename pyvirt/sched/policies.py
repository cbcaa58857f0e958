"""Plug-in policies by name: what ``Scheduler(policy=...)`` knows beside the inlined ones."""

from __future__ import annotations

from collections.abc import Callable

from pyvirt._core.sched.plug import Plug
from pyvirt._core.sched.policies.fixed import FixedPriority
from pyvirt._core.sched.policies.percpu import PerCpu

__all__ = ["PLUGS", "FixedPriority", "PerCpu", "Plug"]

PLUGS: dict[str, Callable[[], Plug]] = {
    "fixed": FixedPriority,
    "percpu": PerCpu,
}
