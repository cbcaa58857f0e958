"""Clusters of hosts: entitlement, DRS, DPM, HA, migration and replay over arrays."""

from pyvirt.cluster.beloglazov_replay import ReplayRecord, ReplayResult, beloglazov
from pyvirt.cluster.beloglazov_setup import Corrections, ReplayHost, ReplaySetup, ReplayVM
from pyvirt.cluster.columns import ClusterError
from pyvirt.cluster.entitle import memory_demand
from pyvirt.cluster.model import Cluster
from pyvirt.cluster.power import PowerTable, energy_kwh, host_watts
from pyvirt.cluster.tables import (
    CPU,
    MEMORY,
    NONE,
    PAGE,
    UNLIMITED,
    Automation,
    Hosts,
    HostState,
    Pools,
    RestartPriority,
    RuleKind,
    Rules,
    VMs,
)

__all__ = [
    "CPU",
    "MEMORY",
    "NONE",
    "PAGE",
    "UNLIMITED",
    "Automation",
    "Cluster",
    "ClusterError",
    "Corrections",
    "HostState",
    "Hosts",
    "Pools",
    "PowerTable",
    "ReplayHost",
    "ReplayRecord",
    "ReplayResult",
    "ReplaySetup",
    "ReplayVM",
    "RestartPriority",
    "RuleKind",
    "Rules",
    "VMs",
    "beloglazov",
    "energy_kwh",
    "host_watts",
    "memory_demand",
]
