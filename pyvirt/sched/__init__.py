"""CPU scheduling of one host: worlds that share CPUs under a policy, exact to the nanosecond."""

from pyvirt._core.sched.engine import COUNTER_DTYPE, CPU_DTYPE, POLICIES, SPEED_DTYPE, STATES
from pyvirt.sched.nice import NICE_WEIGHTS, nice_weight
from pyvirt.sched.policies import PLUGS, Bvt, Cfs, FixedPriority, HyperV, Plug
from pyvirt.sched.scheduler import VM, Scheduler, SchedulerSnapshot, latency_bounds
from pyvirt.sched.topology import Topology
from pyvirt.sched.workloads import Always, Jobs, OnOff, Periodic, Poisson

__all__ = [
    "COUNTER_DTYPE",
    "CPU_DTYPE",
    "NICE_WEIGHTS",
    "PLUGS",
    "POLICIES",
    "SPEED_DTYPE",
    "STATES",
    "VM",
    "Always",
    "Bvt",
    "Cfs",
    "FixedPriority",
    "HyperV",
    "Jobs",
    "OnOff",
    "Periodic",
    "Plug",
    "Poisson",
    "Scheduler",
    "SchedulerSnapshot",
    "Topology",
    "latency_bounds",
    "nice_weight",
]
