"""Clusters of hosts: entitlement, DRS, DPM, HA, migration and replay over arrays."""

from pyvirt.cluster.beloglazov_faults import replay_faults
from pyvirt.cluster.beloglazov_replay import ReplayRecord, ReplayResult, beloglazov
from pyvirt.cluster.beloglazov_setup import Corrections, ReplayHost, ReplaySetup, ReplayVM
from pyvirt.cluster.budgets import Budgets, Kind, Schedule, Site, schedule_migrations
from pyvirt.cluster.columns import ClusterError
from pyvirt.cluster.dpm import DPMOptions, PowerAction, PowerPlan, dpm
from pyvirt.cluster.drs import Balancing, Recommendation, drs
from pyvirt.cluster.drs_levels import priority, target_imbalance
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
from pyvirt.cluster.history import DemandHistory
from pyvirt.cluster.migration import Migration, Precopy, migrate, migrate_many
from pyvirt.cluster.migration_codes import Ended
from pyvirt.cluster.migration_cost import MigrationCost
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
from pyvirt.cluster.moves import migrate_vms, schedule_moves
from pyvirt.cluster.packing import Packing, pack, packing_bound
from pyvirt.cluster.placement import Choice, Placements, choices, place
from pyvirt.cluster.power import PowerTable, energy_kwh, host_watts
from pyvirt.cluster.reach import Reach
from pyvirt.cluster.repair import Repair, evacuate, repair, violations
from pyvirt.cluster.replay import replay
from pyvirt.cluster.replay_engine import Replay
from pyvirt.cluster.replay_policies import DPMPolicy, DRSPolicy, SpreadPolicy
from pyvirt.cluster.replay_records import (
    REPLAY_EVENT,
    REPLAY_FAILURE,
    REPLAY_HOST_STEP,
    REPLAY_STEP,
    Actions,
    Refusal,
    Replayed,
    ReplayEvent,
    ReplayOptions,
    ReplayPolicy,
    every,
    random_failures,
)
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
from pyvirt.cluster.vm_score import ScoreMove, VMScores, improve_scores, vm_scores

__all__ = [
    "CPU",
    "MEMORY",
    "NONE",
    "PAGE",
    "REPLAY_EVENT",
    "REPLAY_FAILURE",
    "REPLAY_HOST_STEP",
    "REPLAY_STEP",
    "UNLIMITED",
    "Actions",
    "Automation",
    "Balancing",
    "Budgets",
    "Choice",
    "Cluster",
    "ClusterError",
    "Conflict",
    "ConstantRate",
    "Corrections",
    "DPMOptions",
    "DPMPolicy",
    "DRSPolicy",
    "Degradation",
    "DemandHistory",
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
    "MigrationCost",
    "Packing",
    "Percentage",
    "Placements",
    "Pools",
    "PowerAction",
    "PowerPlan",
    "PowerTable",
    "Precopy",
    "Protection",
    "Reach",
    "Recommendation",
    "Recovery",
    "Refusal",
    "Repair",
    "Replay",
    "ReplayEvent",
    "ReplayHost",
    "ReplayOptions",
    "ReplayPolicy",
    "ReplayRecord",
    "ReplayResult",
    "ReplaySetup",
    "ReplayVM",
    "Replayed",
    "RestartPriority",
    "RuleKind",
    "Rules",
    "Schedule",
    "ScoreMove",
    "SharedNothing",
    "Site",
    "Slots",
    "SpreadPolicy",
    "StorageLoss",
    "StorageMigration",
    "VMScores",
    "VMs",
    "WorkingSet",
    "admit",
    "beloglazov",
    "choices",
    "consistent",
    "degradation",
    "dpm",
    "drs",
    "energy_kwh",
    "evacuate",
    "every",
    "ft_cost",
    "headroom",
    "host_watts",
    "improve_scores",
    "memory_demand",
    "migrate",
    "migrate_many",
    "migrate_shared_nothing",
    "migrate_storage",
    "migrate_vms",
    "pack",
    "packing_bound",
    "place",
    "priority",
    "protect",
    "random_failures",
    "recover",
    "repair",
    "replay",
    "replay_faults",
    "restart_order",
    "schedule_migrations",
    "schedule_moves",
    "target_imbalance",
    "violations",
    "vm_scores",
    "what_if",
]
