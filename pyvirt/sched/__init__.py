"""CPU scheduling of one host: worlds that share CPUs under a policy, exact to the nanosecond."""

from pyvirt._core.sched.engine import COUNTER_DTYPE, CPU_DTYPE, POLICIES, SPEED_DTYPE, STATES
from pyvirt.sched.numa import Numa
from pyvirt.sched.policies import PLUGS, FixedPriority, PerCpu, Plug
from pyvirt.sched.scheduler import VM, Scheduler, SchedulerSnapshot, latency_bounds
from pyvirt.sched.topology import Topology
from pyvirt.sched.workloads import Always, Jobs, OnOff, Periodic, Poisson

__all__ = [
    "COUNTER_DTYPE",
    "CPU_DTYPE",
    "PLUGS",
    "POLICIES",
    "SPEED_DTYPE",
    "STATES",
    "VM",
    "Always",
    "FixedPriority",
    "Jobs",
    "Numa",
    "OnOff",
    "PerCpu",
    "Periodic",
    "Plug",
    "Poisson",
    "Scheduler",
    "SchedulerSnapshot",
    "Topology",
    "latency_bounds",
]
