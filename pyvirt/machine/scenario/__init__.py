"""Scenarios: described clusters that run, with all levels coupled."""

from pyvirt.machine.scenario.checkpoint import Checkpoint
from pyvirt.machine.scenario.result import VM_STATES, Event, Monitor, Result
from pyvirt.machine.scenario.scenario import Scenario

__all__ = ["VM_STATES", "Checkpoint", "Event", "Monitor", "Result", "Scenario"]
