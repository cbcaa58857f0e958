"""The whole machine: virtual machines, their monitors, and the VMkernel of a host."""

from pyvirt.machine.disks import Disk
from pyvirt.machine.modes import MonitorMode, Processor, Selection, family, select_mode
from pyvirt.machine.snapshots import Snapshot, SnapshotTree
from pyvirt.machine.streams import Stream
from pyvirt.machine.techniques import EventCosts, Execution, execution
from pyvirt.machine.translation import Translation, measure
from pyvirt.machine.vm import VM

__all__ = [
    "VM",
    "Disk",
    "EventCosts",
    "Execution",
    "MonitorMode",
    "Processor",
    "Selection",
    "Snapshot",
    "SnapshotTree",
    "Stream",
    "Translation",
    "execution",
    "family",
    "measure",
    "select_mode",
]
