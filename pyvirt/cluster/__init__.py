"""Clusters of hosts: entitlement, DRS, DPM, HA, migration and replay over arrays."""

from pyvirt.cluster.columns import ClusterError
from pyvirt.cluster.entitle import memory_demand
from pyvirt.cluster.model import Cluster
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
    "HostState",
    "Hosts",
    "Pools",
    "RestartPriority",
    "RuleKind",
    "Rules",
    "VMs",
    "memory_demand",
]
