"""CPU scheduling of one host: worlds that share CPUs under a policy, exact to the nanosecond."""

from pyvirt._core.sched.engine import COUNTER_DTYPE, CPU_DTYPE, POLICIES, STATES
from pyvirt.sched.policies import (
    PLUGS,
    Credit,
    Credit2,
    FixedPriority,
    NativePolicy,
    Plug,
    PythonPolicy,
    Rtds,
    get_include,
)
from pyvirt.sched.scheduler import VM, Scheduler, SchedulerSnapshot, latency_bounds
from pyvirt.sched.workloads import Always, Jobs, OnOff, Periodic, Poisson

__all__ = [
    "COUNTER_DTYPE",
    "CPU_DTYPE",
    "PLUGS",
    "POLICIES",
    "STATES",
    "VM",
    "Always",
    "Credit",
    "Credit2",
    "FixedPriority",
    "Jobs",
    "NativePolicy",
    "OnOff",
    "Periodic",
    "Plug",
    "Poisson",
    "PythonPolicy",
    "Rtds",
    "Scheduler",
    "SchedulerSnapshot",
    "get_include",
    "latency_bounds",
]
