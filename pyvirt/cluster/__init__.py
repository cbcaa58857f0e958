"""Clusters of hosts: entitlement, DRS, DPM, HA, migration and replay over arrays."""

from pyvirt.cluster.columns import ClusterError
from pyvirt.cluster.entitle import memory_demand
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
    "ConstantRate",
    "DirtyLog",
    "Disk",
    "Encryption",
    "Ended",
    "HostState",
    "Hosts",
    "Link",
    "Migration",
    "Pools",
    "Precopy",
    "RestartPriority",
    "RuleKind",
    "Rules",
    "SharedNothing",
    "StorageMigration",
    "VMs",
    "WorkingSet",
    "memory_demand",
    "migrate",
    "migrate_many",
    "migrate_shared_nothing",
    "migrate_storage",
]
