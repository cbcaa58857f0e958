"""CPU scheduling of one host: worlds that share CPUs under a policy, exact to the nanosecond."""

from pyvirt._core.sched.counters import COUNTER_DTYPE, CPU_DTYPE, SPEED_DTYPE, WORK_DTYPE
from pyvirt._core.sched.engine import STATES
from pyvirt._core.sched.owner import POLICIES
from pyvirt.sched.chrome import ChromeTrace, write_chrome_trace
from pyvirt.sched.demand import Demand
from pyvirt.sched.esxhost import EsxHost, EsxVM
from pyvirt.sched.esxtop import EsxtopColumn, EsxtopTable, read_esxtop, write_esxtop
from pyvirt.sched.homes import Homes
from pyvirt.sched.hosts import run_hosts
from pyvirt.sched.latency import latency_percentiles
from pyvirt.sched.nice import NICE_WEIGHTS, nice_weight
from pyvirt.sched.numa import Numa
from pyvirt.sched.policies import (
    CPU_RECORD,
    PLUG_RECORD,
    PLUGS,
    SCHED_RECORD,
    VM_RECORD,
    WORLD_RECORD,
    Bvt,
    Cfs,
    Credit,
    Credit2,
    Esx,
    FixedPriority,
    HyperV,
    NativePolicy,
    PerCpu,
    Plug,
    PythonPolicy,
    Rtds,
    get_include,
)
from pyvirt.sched.responses import percentiles, response_bounds
from pyvirt.sched.scenario import Scenario, ScenarioPool, ScenarioRun, ScenarioVM
from pyvirt.sched.scheduler import VM, Scheduler, SchedulerSnapshot, latency_bounds
from pyvirt.sched.series import Sampler, Series, sample
from pyvirt.sched.timeline import SEGMENT_DTYPE, SWITCH_DTYPE, Timeline
from pyvirt.sched.times import (
    Between,
    BoundedPareto,
    Empirical,
    Exponential,
    Fixed,
    LogNormal,
)
from pyvirt.sched.topology import Topology
from pyvirt.sched.workloads import Always, Barrier, Jobs, Lock, OnOff, Periodic, Poisson

__all__ = [
    "COUNTER_DTYPE",
    "CPU_DTYPE",
    "CPU_RECORD",
    "NICE_WEIGHTS",
    "PLUGS",
    "PLUG_RECORD",
    "POLICIES",
    "SCHED_RECORD",
    "SEGMENT_DTYPE",
    "SPEED_DTYPE",
    "STATES",
    "SWITCH_DTYPE",
    "VM",
    "VM_RECORD",
    "WORK_DTYPE",
    "WORLD_RECORD",
    "Always",
    "Barrier",
    "Between",
    "BoundedPareto",
    "Bvt",
    "Cfs",
    "ChromeTrace",
    "Credit",
    "Credit2",
    "Demand",
    "Empirical",
    "Esx",
    "EsxHost",
    "EsxVM",
    "EsxtopColumn",
    "EsxtopTable",
    "Exponential",
    "Fixed",
    "FixedPriority",
    "Homes",
    "HyperV",
    "Jobs",
    "Lock",
    "LogNormal",
    "NativePolicy",
    "Numa",
    "OnOff",
    "PerCpu",
    "Periodic",
    "Plug",
    "Poisson",
    "PythonPolicy",
    "Rtds",
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
    "nice_weight",
    "percentiles",
    "read_esxtop",
    "response_bounds",
    "run_hosts",
    "sample",
    "write_chrome_trace",
    "write_esxtop",
]
