"""The whole machine: virtual machines, their monitors, and the VMkernel of a host."""

from pyvirt.machine.modes import MonitorMode, Processor, Selection, family, select_mode
from pyvirt.machine.techniques import EventCosts, Execution, execution

__all__ = [
    "EventCosts",
    "Execution",
    "MonitorMode",
    "Processor",
    "Selection",
    "execution",
    "family",
    "select_mode",
]
