"""A slow, plain scheduler: what `pyvirt.sched.Scheduler` does, from its rules, without its code."""

from oracle.slowsched.engine import SlowScheduler
from oracle.slowsched.plugged import SlowPlugged, SlowPolicy

__all__ = ["SlowPlugged", "SlowPolicy", "SlowScheduler"]
