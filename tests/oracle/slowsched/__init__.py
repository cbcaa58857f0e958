"""A slow, plain scheduler: what `pyvirt.sched.Scheduler` does, from its rules, without its code."""

from oracle.slowsched.engine import SlowScheduler

__all__ = ["SlowScheduler"]
