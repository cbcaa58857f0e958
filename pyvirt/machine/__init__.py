"""The whole machine: virtual machines, their monitors, and the VMkernel of a host.

Names are loaded when they are first used: a host whose guests have no address stream needs no MMU.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyvirt.machine.console import ServiceConsole
    from pyvirt.machine.dirtying import log_writes
    from pyvirt.machine.disks import Disk
    from pyvirt.machine.executed import GuestRun, compare_guest, run_guest
    from pyvirt.machine.modes import MonitorMode, Processor, Selection, family, select_mode
    from pyvirt.machine.pricing import Estimate, Priced, estimate, price
    from pyvirt.machine.snapshots import Snapshot, SnapshotTree
    from pyvirt.machine.stats import HostStats
    from pyvirt.machine.streams import Stream
    from pyvirt.machine.techniques import EventCosts, Execution, execution
    from pyvirt.machine.translation import Translation, measure
    from pyvirt.machine.vm import VM
    from pyvirt.machine.vmkernel import VMkernel
    from pyvirt.machine.vmm import VMM

_HOME = {
    "Disk": "disks",
    "Estimate": "pricing",
    "EventCosts": "techniques",
    "Execution": "techniques",
    "GuestRun": "executed",
    "HostStats": "stats",
    "MonitorMode": "modes",
    "Priced": "pricing",
    "Processor": "modes",
    "Selection": "modes",
    "ServiceConsole": "console",
    "Snapshot": "snapshots",
    "SnapshotTree": "snapshots",
    "Stream": "streams",
    "Translation": "translation",
    "VM": "vm",
    "VMM": "vmm",
    "VMkernel": "vmkernel",
    "compare_guest": "executed",
    "estimate": "pricing",
    "execution": "techniques",
    "family": "modes",
    "log_writes": "dirtying",
    "measure": "translation",
    "price": "pricing",
    "run_guest": "executed",
    "select_mode": "modes",
}

__all__ = [
    "VM",
    "VMM",
    "Disk",
    "Estimate",
    "EventCosts",
    "Execution",
    "GuestRun",
    "HostStats",
    "MonitorMode",
    "Priced",
    "Processor",
    "Selection",
    "ServiceConsole",
    "Snapshot",
    "SnapshotTree",
    "Stream",
    "Translation",
    "VMkernel",
    "compare_guest",
    "estimate",
    "execution",
    "family",
    "log_writes",
    "measure",
    "price",
    "run_guest",
    "select_mode",
]


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'pyvirt.machine' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"pyvirt.machine.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
