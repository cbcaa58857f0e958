"""Clusters of hosts: entitlement, DRS, DPM, HA, migration and replay over arrays."""

from pyvirt.cluster.columns import ClusterError
from pyvirt.cluster.entitle import memory_demand
from pyvirt.cluster.model import Cluster
from pyvirt.cluster.placement import Choice, Placements, choices, place
from pyvirt.cluster.reach import Reach
from pyvirt.cluster.repair import Repair, evacuate, repair, violations
from pyvirt.cluster.rules import Conflict, consistent
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
    "Choice",
    "Cluster",
    "ClusterError",
    "Conflict",
    "HostState",
    "Hosts",
    "Placements",
    "Pools",
    "Reach",
    "Repair",
    "RestartPriority",
    "RuleKind",
    "Rules",
    "VMs",
    "choices",
    "consistent",
    "evacuate",
    "memory_demand",
    "place",
    "repair",
    "violations",
]
