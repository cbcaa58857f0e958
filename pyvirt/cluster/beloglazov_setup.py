"""What a replay of Beloglazov and Buyya's policies runs on: hosts, VM types, and repairs."""

from __future__ import annotations

import math
import tomllib
from dataclasses import dataclass, fields
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
import numpy.typing as npt

from pyvirt.cluster.power import PowerTable
from pyvirt.errors import InvalidTypeError, InvalidValueError

__all__ = ["Corrections", "ReplayHost", "ReplaySetup", "ReplayVM"]

STEP_S = 300.0


def _positive(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise InvalidTypeError(f"{name} must be a number, got {value!r:.80}")
    if not (math.isfinite(value) and value > 0):
        raise InvalidValueError(f"{name} must be above 0, got {value!r}")
    return float(value)


@dataclass(frozen=True)
class ReplayHost:
    """A type of hosts.

    Parameters
    ----------
    cores : int
        Cores, each of `core_mips`.
    core_mips : float
        Millions of instructions a second.
    memory_mb : float
        Memory.
    power : PowerTable
        At the points of SPECpower.
    name : str, default ""
        For reports.
    """

    cores: int
    core_mips: float
    memory_mb: float
    power: PowerTable
    name: str = ""

    def __post_init__(self) -> None:
        if _positive(self.cores, "cores") != int(self.cores):
            raise InvalidValueError(f"cores must be a whole number, got {self.cores!r}")
        _positive(self.core_mips, "core_mips")
        _positive(self.memory_mb, "memory_mb")
        if not isinstance(self.power, PowerTable):
            raise InvalidTypeError(f"power must be a PowerTable, got {self.power!r:.80}")
        if not self.power.specpower:
            raise InvalidValueError(
                "power must be at the points 0, 0.1, ... 1 (see PowerTable.resampled), "
                f"got {self.power.utilisation!r:.80}"
            )


@dataclass(frozen=True)
class ReplayVM:
    """A type of VMs, of one vCPU.

    Parameters
    ----------
    mips : float
        What it wants at 100 %.
    memory_mb : float
        Memory, which decides how long it migrates.
    name : str, default ""
        For reports.
    """

    mips: float
    memory_mb: float
    name: str = ""

    def __post_init__(self) -> None:
        _positive(self.mips, "mips")
        _positive(self.memory_mb, "memory_mb")


@dataclass(frozen=True)
class ReplaySetup:
    """Hosts and VMs of a replay.

    Parameters
    ----------
    host_types : sequence of ReplayHost
        Types of hosts.
    vm_types : sequence of ReplayVM
        Types of VMs.
    hosts : int, default 800
        How many hosts there are.
    host_kinds : sequence of int, optional
        The type of each host; by default host i is of type i modulo the number of types.
    vm_kinds : sequence of int, optional
        The type of each VM; by default the VMs are cut into as many blocks of rows as there are
        types, each of the number of VMs over that of types, rounded up.
    migration_mb_s : float, default 62.5
        MB/s at which memory is moved.

    Raises
    ------
    InvalidValueError, InvalidTypeError
        Values out of range; a VM type whose migration would outlast the 300 s between two samples.
    """

    host_types: tuple[ReplayHost, ...]
    vm_types: tuple[ReplayVM, ...]
    hosts: int = 800
    host_kinds: tuple[int, ...] | None = None
    vm_kinds: tuple[int, ...] | None = None
    migration_mb_s: float = 62.5

    def __post_init__(self) -> None:
        for name, kind in (("host_types", ReplayHost), ("vm_types", ReplayVM)):
            given = tuple(getattr(self, name))
            if not given:
                raise InvalidValueError(f"{name} must not be empty")
            for entry in given:
                if not isinstance(entry, kind):
                    raise InvalidTypeError(f"{name} must be of {kind.__name__}, got {entry!r:.80}")
            object.__setattr__(self, name, given)
        if isinstance(self.hosts, bool) or not isinstance(self.hosts, (int, np.integer)):
            raise InvalidTypeError(f"hosts must be a whole number, got {self.hosts!r:.80}")
        if self.hosts < 1:
            raise InvalidValueError(f"hosts must be at least 1, got {self.hosts}")
        _positive(self.migration_mb_s, "migration_mb_s")
        for vm in self.vm_types:
            if vm.memory_mb / self.migration_mb_s >= STEP_S:
                raise InvalidValueError(
                    f"a VM of {vm.memory_mb} MB at migration_mb_s={self.migration_mb_s} takes "
                    f"{vm.memory_mb / self.migration_mb_s:.0f} s; it must be less than 300 s"
                )
        for name, types in (("host_kinds", self.host_types), ("vm_kinds", self.vm_types)):
            kinds = getattr(self, name)
            if kinds is None:
                continue
            array = np.asarray(kinds)
            if array.ndim != 1 or array.dtype.kind not in "iu":
                raise InvalidTypeError(f"{name} must be a sequence of integers, got {kinds!r:.80}")
            bad = np.flatnonzero((array < 0) | (array >= len(types)))
            if bad.size:
                raise InvalidValueError(
                    f"{name}[{bad[0]}] must be 0 to {len(types) - 1}, got {array[bad[0]]}"
                )
            object.__setattr__(self, name, tuple(array.tolist()))
        if self.host_kinds is not None and len(self.host_kinds) != self.hosts:
            raise InvalidValueError(
                f"host_kinds must have {self.hosts} entries, got {len(self.host_kinds)}"
            )

    @classmethod
    def planetlab(cls, hosts: int | None = None) -> ReplaySetup:
        """Give the configuration of the PlanetLab power experiments.

        Parameters
        ----------
        hosts : int, optional
            How many hosts; by default 800.

        Returns
        -------
        ReplaySetup
        """
        made = _planetlab()
        if hosts is None:
            return made
        return cls(made.host_types, made.vm_types, hosts, migration_mb_s=made.migration_mb_s)

    def kinds_of_hosts(self) -> npt.NDArray[np.int64]:
        """Give the type of each host."""
        if self.host_kinds is not None:
            return np.array(self.host_kinds, dtype=np.int64)
        return np.arange(self.hosts, dtype=np.int64) % len(self.host_types)

    def kinds_of_vms(self, count: int) -> npt.NDArray[np.int64]:
        """Give the type of each of `count` VMs."""
        if self.vm_kinds is None:
            block = -(-count // len(self.vm_types))
            return np.arange(count, dtype=np.int64) // block
        if len(self.vm_kinds) != count:
            raise InvalidValueError(
                f"vm_kinds must have {count} entries, one for each row of util, "
                f"got {len(self.vm_kinds)}"
            )
        return np.array(self.vm_kinds, dtype=np.int64)


@cache
def _planetlab() -> ReplaySetup:
    text = files("pyvirt.cluster").joinpath("replay_data/planetlab.toml").read_text("utf-8")
    table: dict[str, Any] = tomllib.loads(text)

    def values(entry: dict[str, Any]) -> dict[str, Any]:
        return {key: x["value"] if isinstance(x, dict) else x for key, x in entry.items()}

    host_types = []
    for entry in table["host_types"]:
        fields_of = values(entry)
        watts = fields_of.pop("watts")
        host_types.append(ReplayHost(power=PowerTable(tuple(watts)), **fields_of))
    vm_types = [ReplayVM(**values(entry)) for entry in table["vm_types"]]
    return ReplaySetup(
        tuple(host_types),
        tuple(vm_types),
        table["hosts"]["value"],
        migration_mb_s=table["migration_mb_s"]["value"],
    )


@dataclass(frozen=True)
class Corrections:
    """Which faults of the reference model are repaired; none by default.

    Parameters
    ----------
    weighted_regression : bool
        LR weighs its ten values by their distance in time (tricube), LRR once more by their
        distance from the line (bisquare). Else both are the same: plain least squares.
    memory : bool
        A VM claims its memory for life, and a host must have it free. Else it claims it only while
        it is created, and nothing limits how many VMs share a host's memory.
    idle_vms : bool
        A VM that wants nothing stays, and a host that holds VMs is on. Else a VM whose demand is 0
        at an update is gone for good, and a host is on while it is used.
    destination_power : bool
        The power that a VM costs at a destination is that with all VMs put there by now over that
        of now, which is 0 for a host that is off. Else a host counts as it was at the beginning of
        the step, and one that is off as if it drew its idle power already.
    whole_day : bool
        Energy and service levels count from 0 s to the end of the last sample. Else what is before
        300.1 s, and behind the last update, costs nothing.
    single_moves : bool
        A VM that would move twice in a step moves to its last destination at once, and counts once.
    migration_intervals : bool
        The mean time before a migration is that between migrations of a VM (before the first one,
        since 0 s). Else it is the time that a migration takes.
    """

    weighted_regression: bool = False
    memory: bool = False
    idle_vms: bool = False
    destination_power: bool = False
    whole_day: bool = False
    single_moves: bool = False
    migration_intervals: bool = False

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, (bool, np.bool_)):
                raise InvalidTypeError(f"{field.name} must be True or False, got {value!r:.80}")

    @classmethod
    def every(cls) -> Corrections:
        """Repair all seven."""
        return cls(**{field.name: True for field in fields(cls)})
