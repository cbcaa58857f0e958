"""CPU scheduling of one host: worlds that share CPUs under a policy, exact to the nanosecond."""

from pyvirt._core.sched.engine import COUNTER_DTYPE, CPU_DTYPE, POLICIES, STATES
from pyvirt.sched.scheduler import Scheduler, SchedulerSnapshot, latency_bounds
from pyvirt.sched.topology import Topology
from pyvirt.sched.workloads import Always, Jobs, OnOff, Periodic, Poisson

__all__ = [
    "COUNTER_DTYPE",
    "CPU_DTYPE",
    "POLICIES",
    "STATES",
    "Always",
    "Jobs",
    "OnOff",
    "Periodic",
    "Poisson",
    "Scheduler",
    "SchedulerSnapshot",
    "Topology",
    "latency_bounds",
]
