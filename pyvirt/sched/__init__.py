"""CPU scheduling of one host: worlds that share CPUs under a policy, exact to the nanosecond."""

from pyvirt._core.sched.engine import COUNTER_DTYPE, CPU_DTYPE, POLICIES, STATES
from pyvirt.sched.esxtop import EsxtopColumn, EsxtopTable, read_esxtop, write_esxtop
from pyvirt.sched.hosts import run_hosts
from pyvirt.sched.scheduler import Scheduler, SchedulerSnapshot, latency_bounds
from pyvirt.sched.series import Sampler, Series, sample
from pyvirt.sched.workloads import Always, Jobs, OnOff, Periodic, Poisson

__all__ = [
    "COUNTER_DTYPE",
    "CPU_DTYPE",
    "POLICIES",
    "STATES",
    "Always",
    "EsxtopColumn",
    "EsxtopTable",
    "Jobs",
    "OnOff",
    "Periodic",
    "Poisson",
    "Sampler",
    "Scheduler",
    "SchedulerSnapshot",
    "Series",
    "latency_bounds",
    "read_esxtop",
    "run_hosts",
    "sample",
    "write_esxtop",
]
