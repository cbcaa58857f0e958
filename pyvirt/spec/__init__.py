"""What a user describes, as plain data: frozen, checked, with units at the edge."""

from pyvirt.spec.base import Spec
from pyvirt.spec.cluster import ClusterSpec, RuleSpec
from pyvirt.spec.events import ClaimSpec, EventSpec, FaultSpec
from pyvirt.spec.files import dump_json, dump_toml, load_cluster, load_scenario
from pyvirt.spec.host import AdapterSpec, HostSpec
from pyvirt.spec.policy import DPMSpec, DRSSpec, HASpec, MemoryPolicySpec, PolicySpec
from pyvirt.spec.scenario import ScenarioSpec
from pyvirt.spec.schema import schema
from pyvirt.spec.storage import ArraySpec, DatastoreSpec, NetworkSpec, SwitchSpec
from pyvirt.spec.vm import Claimant, DiskSpec, NicSpec, PoolSpec, VMSpec
from pyvirt.spec.workload import (
    DemandSpec,
    DiskLoadSpec,
    EventRatesSpec,
    GuestProgramSpec,
    MemoryLoadSpec,
    NetworkLoadSpec,
    PageClassSpec,
    StreamSpec,
    WorkloadSpec,
)

__all__ = [
    "AdapterSpec",
    "ArraySpec",
    "ClaimSpec",
    "Claimant",
    "ClusterSpec",
    "DPMSpec",
    "DRSSpec",
    "DatastoreSpec",
    "DemandSpec",
    "DiskLoadSpec",
    "DiskSpec",
    "EventRatesSpec",
    "EventSpec",
    "FaultSpec",
    "GuestProgramSpec",
    "HASpec",
    "HostSpec",
    "MemoryLoadSpec",
    "MemoryPolicySpec",
    "NetworkLoadSpec",
    "NetworkSpec",
    "NicSpec",
    "PageClassSpec",
    "PolicySpec",
    "PoolSpec",
    "RuleSpec",
    "ScenarioSpec",
    "Spec",
    "StreamSpec",
    "SwitchSpec",
    "VMSpec",
    "WorkloadSpec",
    "dump_json",
    "dump_toml",
    "load_cluster",
    "load_scenario",
    "schema",
]
