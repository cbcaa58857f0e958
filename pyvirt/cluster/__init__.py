"""Clusters of hosts: entitlement, DRS, DPM, HA, migration and replay over arrays."""

from pyvirt.cluster.budgets import Budgets, Kind, Schedule, Site, schedule_migrations
from pyvirt.cluster.columns import ClusterError
from pyvirt.cluster.entitle import memory_demand
from pyvirt.cluster.ft import FaultTolerance, FTCost, Protection, ft_cost, protect
from pyvirt.cluster.ha import Recovery, recover
from pyvirt.cluster.ha_admission import (
    Degradation,
    FailoverError,
    FailoverHosts,
    Headroom,
    Percentage,
    Slots,
    admit,
    degradation,
    headroom,
)
from pyvirt.cluster.ha_rules import HAEvent, HARules, HostFailure, Isolation, StorageLoss
from pyvirt.cluster.ha_whatif import Failures, restart_order, what_if
from pyvirt.cluster.migration import Migration, Precopy, migrate, migrate_many
from pyvirt.cluster.migration_codes import Ended
from pyvirt.cluster.migration_dirty import ConstantRate, DirtyLog, WorkingSet
from pyvirt.cluster.migration_link import Encryption, Link
from pyvirt.cluster.migration_storage import (
    Disk,
    SharedNothing,
    StorageMigration,
    migrate_shared_nothing,
    migrate_storage,
)
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
    "Budgets",
    "Choice",
    "Cluster",
    "ClusterError",
    "Conflict",
    "ConstantRate",
    "Degradation",
    "DirtyLog",
    "Disk",
    "Encryption",
    "Ended",
    "FTCost",
    "FailoverError",
    "FailoverHosts",
    "Failures",
    "FaultTolerance",
    "HAEvent",
    "HARules",
    "Headroom",
    "HostFailure",
    "HostState",
    "Hosts",
    "Isolation",
    "Kind",
    "Link",
    "Migration",
    "Percentage",
    "Placements",
    "Pools",
    "Precopy",
    "Protection",
    "Reach",
    "Recovery",
    "Repair",
    "RestartPriority",
    "RuleKind",
    "Rules",
    "Schedule",
    "SharedNothing",
    "Site",
    "Slots",
    "StorageLoss",
    "StorageMigration",
    "VMs",
    "WorkingSet",
    "admit",
    "choices",
    "consistent",
    "degradation",
    "evacuate",
    "ft_cost",
    "headroom",
    "memory_demand",
    "migrate",
    "migrate_many",
    "migrate_shared_nothing",
    "migrate_storage",
    "place",
    "protect",
    "recover",
    "repair",
    "restart_order",
    "schedule_migrations",
    "violations",
    "what_if",
]
