"""A vCenter in the process: inventory, tasks, events, alarms and counters over simulated time."""

from pyvirt.cluster.vcenter.alarms import DEFAULT_ALARMS, AlarmRule, Alarms
from pyvirt.cluster.vcenter.center import VCenter
from pyvirt.cluster.vcenter.inventory import Inventory, Node
from pyvirt.cluster.vcenter.performance import COUNTERS, INTERVALS, Interval, Performance
from pyvirt.cluster.vcenter.records import Event, Log, Task

__all__ = [
    "COUNTERS",
    "DEFAULT_ALARMS",
    "INTERVALS",
    "AlarmRule",
    "Alarms",
    "Event",
    "Interval",
    "Inventory",
    "Log",
    "Node",
    "Performance",
    "Task",
    "VCenter",
]
