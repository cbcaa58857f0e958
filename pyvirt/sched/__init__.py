"""CPU scheduling of one host: worlds that share CPUs under a policy, exact to the nanosecond."""

<<<<<<< HEAD
from pyvirt._core.sched.engine import COUNTER_DTYPE, CPU_DTYPE, POLICIES, STATES
from pyvirt.sched.esxhost import EsxHost, EsxVM
from pyvirt.sched.policies import PLUGS, Esx, FixedPriority, Plug
=======
from pyvirt._core.sched.engine import COUNTER_DTYPE, CPU_DTYPE, POLICIES, SPEED_DTYPE, STATES
from pyvirt.sched.policies import PLUGS, FixedPriority, Plug
>>>>>>> 2f99e9abbcb8033c9e547b61d0732a44a9f9c354
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
    "Esx",
    "EsxHost",
    "EsxVM",
    "FixedPriority",
    "Jobs",
    "OnOff",
    "Periodic",
    "Plug",
    "Poisson",
    "Scheduler",
    "SchedulerSnapshot",
    "Topology",
    "latency_bounds",
]
