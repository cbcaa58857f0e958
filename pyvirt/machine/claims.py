"""Shares, reservations and limits of virtual machines, in the terms that a hypervisor has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pyvirt.entitlement.pools import Shares
from pyvirt.errors import InvalidTypeError, InvalidValueError
from pyvirt.machine.profile import Profile
from pyvirt.spec import VMSpec

__all__ = ["CpuClaim", "MemoryClaim", "cpu_claim", "memory_claim"]

SECOND = 10**9
MIB = 2**20
MOST_WEIGHT = 1 << 20


@dataclass(frozen=True, slots=True)
class CpuClaim:
    """What a virtual machine is given of the CPU, as `pyvirt.sched.Scheduler.add_vm` takes it.

    Attributes
    ----------
    weight : int
        Of the whole machine.
    reservation, limit : int or None
        CPU time in ns per second of time, of the whole machine.
    params : dict of str to int
        Parameters of the machine that the policy declares.
    quota : (int, int) or None
        CPU time and period in ns that each vCPU is limited to, for `Scheduler.set_limit`.
    lost : tuple of str
        What the hypervisor has no means for: ``"shares"``, ``"reservation"``, ``"limit"``.
    """

    weight: int
    reservation: int | None = None
    limit: int | None = None
    params: Mapping[str, int] = field(default_factory=dict)
    quota: tuple[int, int] | None = None
    lost: tuple[str, ...] = ()

    def arguments(self) -> dict[str, Any]:
        """Give the keyword arguments of `add_vm`."""
        made: dict[str, Any] = {"weight": self.weight, **self.params}
        if self.reservation is not None:
            made["reservation"] = self.reservation
        if self.limit is not None:
            made["limit"] = self.limit
        return made


@dataclass(frozen=True, slots=True)
class MemoryClaim:
    """What a virtual machine is given of the memory, in bytes.

    Attributes
    ----------
    startup : int
        What must be there when it is powered on.
    minimum, maximum : int
        What it keeps in any case, and what it may have.
    shares : int
        By which what is above the minima is divided.
    buffer : float
        Part of what it needs that it is given in addition (Hyper-V's dynamic memory).
    lost : tuple of str
        What the hypervisor has no means for: ``"shares"``, ``"reservation"``, ``"limit"``.
    """

    startup: int
    minimum: int
    maximum: int
    shares: int
    buffer: float = 0.0
    lost: tuple[str, ...] = ()


def cpu_claim(profile: Profile, vm: VMSpec, mhz: float, scheduler: str | None = None) -> CpuClaim:
    """Say what a virtual machine is given of the CPU.

    A weight is that of a machine with normal shares, times what the machine's shares are of those
    of its size (vSphere's: 1000 a vCPU), within the hypervisor's bounds and 2**20. Percentages are
    whole.

    Parameters
    ----------
    profile : Profile
        The hypervisor.
    vm : VMSpec
        The machine.
    mhz : float
        Of a core.
    scheduler : str, optional
        One of the profile's; default: its default.

    Raises
    ------
    InvalidValueError, InvalidTypeError
        For what is not as described, and a reservation of more than the vCPUs can use.
    """
    _check(profile, vm)
    if isinstance(mhz, (bool, str)) or not 0 < mhz < float("inf"):
        raise InvalidValueError(f"mhz must be positive and finite, got {mhz!r:.80}")
    most = vm.vcpus * mhz
    if vm.cpu_reservation > most:
        raise InvalidValueError(
            f"cpu_reservation of VM {vm.name!r:.80} must be at most the {most:g} MHz of its vCPUs, "
            f"got {vm.cpu_reservation:g}"
        )
    name = profile.scheduling(scheduler).name
    values = profile.table(f"schedulers.{name}")
    lost = []
    ratio = _ratio(vm.cpu, "cpu", vm.vcpus)
    size = vm.vcpus if values["weight_by_vcpu"] else 1
    weight = min(max(values["weight"] * ratio, values["least_weight"]), values["most_weight"])
    if ratio != 1 and values["least_weight"] == values["most_weight"]:
        lost.append("shares")
    made: dict[str, Any] = {"weight": min(max(round(weight * size), 1), MOST_WEIGHT)}
    params: dict[str, int] = {}
    if vm.cpu_reservation:
        _reserve(values, vm, mhz, made, params, lost)
    elif values["reservation"] == "budget":
        params |= {"period_ns": values["period_ns"], "budget_ns": values["budget_ns"]}
    if vm.cpu_limit is not None:
        _limit(values, vm, mhz, made, params, lost)
    return CpuClaim(**made, params=params, lost=tuple(lost))


def memory_claim(profile: Profile, vm: VMSpec) -> MemoryClaim:
    """Say what a virtual machine is given of the memory.

    Parameters
    ----------
    profile : Profile
        The hypervisor.
    vm : VMSpec
        The machine.
    """
    _check(profile, vm)
    values = profile.table("memory")
    kind = values["minimum"]
    most = vm.memory if vm.memory_limit is None else min(vm.memory, vm.memory_limit)
    mib = max(vm.memory / MIB, 1.0)
    ratio = _ratio(vm.mem, "memory", mib)
    lost = []
    if kind == "reservation":
        shares = round(values["shares_per_mib"] * mib * ratio)
        return MemoryClaim(vm.memory_reservation, min(vm.memory_reservation, most), most, shares)
    if vm.memory_limit is not None and kind != "dynamic":
        lost.append("limit")
        most = vm.memory
    if kind == "dynamic":
        part = round(values["startup"] * most)
        startup = min(part if vm.memory_startup is None else vm.memory_startup, most)
        least = vm.memory_reservation or min(values["minimum_bytes"], startup)
        shares = round(min(max(values["weight"] * ratio, 0), 100))
        return MemoryClaim(startup, min(least, startup), most, shares, values["buffer"])
    if ratio != 1:
        lost.append("shares")
    if vm.memory_reservation and kind == "nothing":
        lost.append("reservation")
    minimum = vm.memory if kind == "memory" else 0
    return MemoryClaim(minimum, minimum, most, round(mib), lost=tuple(lost))


def _reserve(
    values: Mapping[str, Any],
    vm: VMSpec,
    mhz: float,
    made: dict[str, Any],
    params: dict[str, int],
    lost: list[str],
) -> None:
    """Reserve CPU time by the means that there are."""
    part = vm.cpu_reservation / mhz
    if values["reservation"] == "time":
        made["reservation"] = round(part * SECOND)
    elif values["reservation"] == "percent":
        params["reserve"] = min(round(100 * part / vm.vcpus), 100)
    elif values["reservation"] == "budget":
        params["period_ns"] = values["period_ns"]
        params["budget_ns"] = max(round(part / vm.vcpus * values["period_ns"]), 1)
    else:
        lost.append("reservation")


def _limit(
    values: Mapping[str, Any],
    vm: VMSpec,
    mhz: float,
    made: dict[str, Any],
    params: dict[str, int],
    lost: list[str],
) -> None:
    """Limit CPU time by the means that there are; no limit is below the least that can be said."""
    part = (vm.cpu_limit or 0.0) / mhz
    if values["limit"] == "time":
        made["limit"] = max(round(part * SECOND), 1)
    elif values["limit"] == "cap":
        params["cap"] = max(round(100 * part), 1)
    elif values["limit"] == "percent":
        params["maximum"] = min(max(round(100 * part / vm.vcpus), 1), 100)
    elif values["limit"] == "vcpu":
        period = values["period_ns"]
        if part < vm.vcpus:
            made["quota"] = (max(round(part / vm.vcpus * period), 1), period)
    else:
        lost.append("limit")


def _ratio(value: int | str, resource: Literal["cpu", "memory"], size: float) -> float:
    """Give shares over what is normal for a machine of a size."""
    normal = Shares.NORMAL.number(resource, size)
    number = Shares(value).number(resource, size) if isinstance(value, str) else value
    return number / normal


def _check(profile: Profile, vm: VMSpec) -> None:
    if not isinstance(profile, Profile):
        raise InvalidTypeError(f"profile must be a Profile, not {profile!r:.80}")
    if not isinstance(vm, VMSpec):
        raise InvalidTypeError(f"vm must be a VMSpec, not {vm!r:.80}")
