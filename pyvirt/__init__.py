"""pyvirt: a compiled virtualisation laboratory.

The public names are loaded when they are first used, so that importing the package costs
little more than importing NumPy, and neither Numba nor plotting is loaded before it is needed.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyvirt._core.access import Access
    from pyvirt._core.builder import PageTables
    from pyvirt._core.walker import Translation, Walker
    from pyvirt.adapters.sweep import sweep
    from pyvirt.cluster.model import Cluster
    from pyvirt.entitlement.pools import Shares
    from pyvirt.errors import (
        AdmissionError,
        EstimateWarning,
        Fault,
        FrameExhaustedError,
        ImageFormatError,
        InvalidTypeError,
        InvalidValueError,
        LimitError,
        MappingError,
        MissingDependencyError,
        MonitorModeError,
        OutputError,
        OutsideMemoryError,
        PageFaultError,
        PolicyError,
        PowerStateError,
        PyvirtError,
        TraceFormatError,
        UnsupportedHostError,
        describe_fault,
    )
    from pyvirt.guest.system import GuestOS
    from pyvirt.hostmem.memory import HostMemory
    from pyvirt.machine.scenario.scenario import Scenario
    from pyvirt.machine.vm import VM
    from pyvirt.machine.vmkernel import VMkernel
    from pyvirt.machine.vmm import VMM
    from pyvirt.mmu.accesses import Accesses
    from pyvirt.mmu.agile import AgileRules
    from pyvirt.mmu.compare import Comparison, compare
    from pyvirt.mmu.costs import CostModel
    from pyvirt.mmu.exits import ExitCosts
    from pyvirt.mmu.geometry import Geometry
    from pyvirt.mmu.memory import PhysicalMemory
    from pyvirt.mmu.mmu import MMU
    from pyvirt.mmu.results import Translations
    from pyvirt.mmu.shadow import Hypervisor, ShadowRules
    from pyvirt.mmu.spaces import AddressSpace, NestedAddressSpace
    from pyvirt.spec import (
        ClusterSpec,
        HostSpec,
        PoolSpec,
        RuleSpec,
        ScenarioSpec,
        VMSpec,
        WorkloadSpec,
    )
    from pyvirt.x86.calibrate import calibrate

__version__ = "0.1.0.dev0"

_HOME = {
    "Scenario": "pyvirt.machine.scenario.scenario",
    "sweep": "pyvirt.adapters.sweep",
    "PageTables": "pyvirt._core.builder",
    "Translation": "pyvirt._core.walker",
    "Walker": "pyvirt._core.walker",
    "Access": "pyvirt._core.access",
    "Accesses": "pyvirt.mmu.accesses",
    "Cluster": "pyvirt.cluster.model",
    "ClusterSpec": "pyvirt.spec",
    "HostSpec": "pyvirt.spec",
    "PoolSpec": "pyvirt.spec",
    "RuleSpec": "pyvirt.spec",
    "ScenarioSpec": "pyvirt.spec",
    "VMSpec": "pyvirt.spec",
    "WorkloadSpec": "pyvirt.spec",
    "Comparison": "pyvirt.mmu.compare",
    "CostModel": "pyvirt.mmu.costs",
    "ExitCosts": "pyvirt.mmu.exits",
    "compare": "pyvirt.mmu.compare",
    "Geometry": "pyvirt.mmu.geometry",
    "GuestOS": "pyvirt.guest.system",
    "VM": "pyvirt.machine.vm",
    "VMM": "pyvirt.machine.vmm",
    "VMkernel": "pyvirt.machine.vmkernel",
    "HostMemory": "pyvirt.hostmem.memory",
    "MMU": "pyvirt.mmu.mmu",
    "Hypervisor": "pyvirt.mmu.shadow",
    "PhysicalMemory": "pyvirt.mmu.memory",
    "AgileRules": "pyvirt.mmu.agile",
    "ShadowRules": "pyvirt.mmu.shadow",
    "Translations": "pyvirt.mmu.results",
    "AddressSpace": "pyvirt.mmu.spaces",
    "NestedAddressSpace": "pyvirt.mmu.spaces",
    "Shares": "pyvirt.entitlement.pools",
    "calibrate": "pyvirt.x86.calibrate",
    "AdmissionError": "pyvirt.errors",
    "EstimateWarning": "pyvirt.errors",
    "Fault": "pyvirt.errors",
    "FrameExhaustedError": "pyvirt.errors",
    "ImageFormatError": "pyvirt.errors",
    "InvalidTypeError": "pyvirt.errors",
    "InvalidValueError": "pyvirt.errors",
    "LimitError": "pyvirt.errors",
    "MappingError": "pyvirt.errors",
    "MissingDependencyError": "pyvirt.errors",
    "MonitorModeError": "pyvirt.errors",
    "OutputError": "pyvirt.errors",
    "OutsideMemoryError": "pyvirt.errors",
    "PageFaultError": "pyvirt.errors",
    "PolicyError": "pyvirt.errors",
    "PowerStateError": "pyvirt.errors",
    "PyvirtError": "pyvirt.errors",
    "TraceFormatError": "pyvirt.errors",
    "UnsupportedHostError": "pyvirt.errors",
    "describe_fault": "pyvirt.errors",
}

# Packages that are loaded when they are named: `pyvirt.traces` needs no import of its own.
_PARTS = frozenset(
    {
        "adapters",
        "cluster",
        "entitlement",
        "guest",
        "hostmem",
        "machine",
        "mmu",
        "report",
        "sched",
        "spec",
        "traces",
        "validation",
        "x86",
    }
)

__all__ = [
    "MMU",
    "VM",
    "VMM",
    "Access",
    "Accesses",
    "AddressSpace",
    "AdmissionError",
    "AgileRules",
    "Cluster",
    "ClusterSpec",
    "Comparison",
    "CostModel",
    "EstimateWarning",
    "ExitCosts",
    "Fault",
    "FrameExhaustedError",
    "Geometry",
    "GuestOS",
    "HostMemory",
    "HostSpec",
    "Hypervisor",
    "ImageFormatError",
    "InvalidTypeError",
    "InvalidValueError",
    "LimitError",
    "MappingError",
    "MissingDependencyError",
    "MonitorModeError",
    "NestedAddressSpace",
    "OutputError",
    "OutsideMemoryError",
    "PageFaultError",
    "PageTables",
    "PhysicalMemory",
    "PolicyError",
    "PoolSpec",
    "PowerStateError",
    "PyvirtError",
    "RuleSpec",
    "Scenario",
    "ScenarioSpec",
    "ShadowRules",
    "Shares",
    "TraceFormatError",
    "Translation",
    "Translations",
    "UnsupportedHostError",
    "VMSpec",
    "VMkernel",
    "Walker",
    "WorkloadSpec",
    "calibrate",
    "compare",
    "describe_fault",
    "sweep",
]


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if name in _PARTS:
        return importlib.import_module(f"pyvirt.{name}")
    if home is None:
        raise AttributeError(f"module 'pyvirt' has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME, *_PARTS})
