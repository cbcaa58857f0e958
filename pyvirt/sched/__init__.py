"""CPU scheduling of one host: worlds that share CPUs under a policy, exact to the nanosecond."""

from pyvirt._core.sched.engine import COUNTER_DTYPE, CPU_DTYPE, POLICIES, STATES, WORK_DTYPE
from pyvirt.sched.demand import Demand
from pyvirt.sched.policies import (
    CPU_RECORD,
    PLUG_RECORD,
    PLUGS,
    SCHED_RECORD,
    VM_RECORD,
    WORLD_RECORD,
    FixedPriority,
    NativePolicy,
    Plug,
    PythonPolicy,
    get_include,
)
from pyvirt.sched.responses import percentiles, response_bounds
from pyvirt.sched.scheduler import VM, Scheduler, SchedulerSnapshot, latency_bounds
from pyvirt.sched.times import (
    Between,
    BoundedPareto,
    Empirical,
    Exponential,
    Fixed,
    LogNormal,
)
from pyvirt.sched.workloads import Always, Barrier, Jobs, Lock, OnOff, Periodic, Poisson

__all__ = [
    "COUNTER_DTYPE",
    "CPU_DTYPE",
    "CPU_RECORD",
    "PLUGS",
    "PLUG_RECORD",
    "POLICIES",
    "SCHED_RECORD",
    "STATES",
    "VM",
    "VM_RECORD",
    "WORK_DTYPE",
    "WORLD_RECORD",
    "Always",
    "Barrier",
    "Between",
    "BoundedPareto",
    "Demand",
    "Empirical",
    "Exponential",
    "Fixed",
    "FixedPriority",
    "Jobs",
    "Lock",
    "LogNormal",
    "NativePolicy",
    "OnOff",
    "Periodic",
    "Plug",
    "Poisson",
    "PythonPolicy",
    "Scheduler",
    "SchedulerSnapshot",
    "get_include",
    "latency_bounds",
    "percentiles",
    "response_bounds",
]
