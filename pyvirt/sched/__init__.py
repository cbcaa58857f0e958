"""CPU scheduling of one host: worlds that share CPUs under a policy, exact to the nanosecond."""

from pyvirt._core.sched.engine import COUNTER_DTYPE, CPU_DTYPE, POLICIES, SPEED_DTYPE, STATES
from pyvirt.sched.chrome import ChromeTrace, write_chrome_trace
from pyvirt.sched.esxhost import EsxHost, EsxVM
from pyvirt.sched.esxtop import EsxtopColumn, EsxtopTable, read_esxtop, write_esxtop
from pyvirt.sched.hosts import run_hosts
from pyvirt.sched.latency import latency_percentiles
from pyvirt.sched.policies import (
    PLUGS,
    Esx,
    FixedPriority,
    NativePolicy,
    Plug,
    PythonPolicy,
    get_include,
)
from pyvirt.sched.scenario import Scenario, ScenarioPool, ScenarioRun, ScenarioVM
from pyvirt.sched.scheduler import VM, Scheduler, SchedulerSnapshot, latency_bounds
from pyvirt.sched.series import Sampler, Series, sample
from pyvirt.sched.timeline import SEGMENT_DTYPE, SWITCH_DTYPE, Timeline
from pyvirt.sched.topology import Topology
from pyvirt.sched.workloads import Always, Jobs, OnOff, Periodic, Poisson

__all__ = [
    "COUNTER_DTYPE",
    "CPU_DTYPE",
    "PLUGS",
    "POLICIES",
    "SEGMENT_DTYPE",
    "SPEED_DTYPE",
    "STATES",
    "SWITCH_DTYPE",
    "VM",
    "Always",
    "ChromeTrace",
    "Esx",
    "EsxHost",
    "EsxVM",
    "EsxtopColumn",
    "EsxtopTable",
    "FixedPriority",
    "Jobs",
    "NativePolicy",
    "OnOff",
    "Periodic",
    "Plug",
    "Poisson",
    "PythonPolicy",
    "Sampler",
    "Scenario",
    "ScenarioPool",
    "ScenarioRun",
    "ScenarioVM",
    "Scheduler",
    "SchedulerSnapshot",
    "Series",
    "Timeline",
    "Topology",
    "get_include",
    "latency_bounds",
    "latency_percentiles",
    "read_esxtop",
    "run_hosts",
    "sample",
    "write_chrome_trace",
    "write_esxtop",
]
