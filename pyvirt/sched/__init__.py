"""CPU scheduling of one host: worlds that share CPUs under a policy, exact to the nanosecond."""

from pyvirt._core.sched.engine import COUNTER_DTYPE, CPU_DTYPE, POLICIES, SPEED_DTYPE, STATES
from pyvirt.sched.numa import Numa
from pyvirt.sched.policies import (
    CPU_RECORD,
    PLUG_RECORD,
    PLUGS,
    SCHED_RECORD,
    VM_RECORD,
    WORLD_RECORD,
    FixedPriority,
    NativePolicy,
    PerCpu,
    Plug,
    PythonPolicy,
    get_include,
)
from pyvirt.sched.scheduler import VM, Scheduler, SchedulerSnapshot, latency_bounds
from pyvirt.sched.topology import Topology
from pyvirt.sched.workloads import Always, Jobs, OnOff, Periodic, Poisson

__all__ = [
    "COUNTER_DTYPE",
    "CPU_DTYPE",
    "CPU_RECORD",
    "PLUGS",
    "PLUG_RECORD",
    "POLICIES",
    "SCHED_RECORD",
    "SPEED_DTYPE",
    "STATES",
    "VM",
    "VM_RECORD",
    "WORLD_RECORD",
    "Always",
    "FixedPriority",
    "Jobs",
    "NativePolicy",
    "Numa",
    "OnOff",
    "PerCpu",
    "Periodic",
    "Plug",
    "Poisson",
    "PythonPolicy",
    "Scheduler",
    "SchedulerSnapshot",
    "Topology",
    "get_include",
    "latency_bounds",
]
