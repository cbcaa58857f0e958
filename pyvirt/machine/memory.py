"""The memory of a host's virtual machines: `pyvirt.hostmem`, fed by descriptions."""

from __future__ import annotations

import dataclasses
import functools
from fractions import Fraction
from typing import Any

import numpy as np

from pyvirt.errors import AdmissionError
from pyvirt.hostmem import Action, Constants, HostMemory, Policy, esx6, esx2002, overhead_pages
from pyvirt.machine.claims import memory_claim
from pyvirt.machine.modes import MonitorMode
from pyvirt.machine.profile import MemoryRules, Profile
from pyvirt.spec import HostSpec, MemoryLoadSpec, VMSpec

__all__ = [
    "MachineMemory",
    "constants_for",
    "memory_inputs",
    "overhead_bytes",
    "policy_for",
    "set_claim",
]

PAGE = 4096
SECOND = 1_000_000_000
#: What a hypervisor that lacks a means of reclaiming never does.
MEANS = {
    "share": Action.SHARE,
    "balloon": Action.BALLOON,
    "compress": Action.COMPRESS,
    "swap": Action.SWAP,
    "block": Action.BLOCK,
}
NAMES = {MonitorMode.HWMMU: "hwmmu", MonitorMode.HV: "hv", MonitorMode.BT: "bt"}


def overhead_bytes(spec: VMSpec, mode: MonitorMode) -> int:
    """Give what the monitor of a virtual machine takes beside its memory.

    As it says itself (``memory_overhead``), else as `pyvirt.hostmem.overhead_pages`; a
    paravirtual guest is taken as one with shadow tables.
    """
    if spec.memory_overhead or not spec.memory:
        return spec.memory_overhead
    return _overhead(max(1, spec.memory // PAGE), spec.vcpus, NAMES.get(mode, "hv")) * PAGE


@functools.lru_cache(maxsize=4096)
def _overhead(pages: int, vcpus: int, mode: Any) -> int:
    return int(overhead_pages(pages, vcpus, mode))


def policy_for(rules: MemoryRules) -> Policy:
    """Give thresholds and actions by a profile.

    A hypervisor without thresholds of its own has those of vSphere 6, since its host's kernel
    keeps memory free by ones that are not in the profile.
    """
    base = esx2002() if rules.states == "esx2002" else esx6()
    kept = 0
    for means, action in MEANS.items():
        if means in rules.reclaim:
            kept |= int(action)
    known = 0
    for action in MEANS.values():
        known |= int(action)
    actions: Any = tuple(bits & (kept | ~known) for bits in base.actions)
    return dataclasses.replace(
        base,
        actions=actions,
        balloon_part=Fraction(str(rules.balloon_most)),
        cache_part=Fraction(str(rules.compression_most)),
        salted=rules.sharing != "all",
    )


def constants_for(rules: MemoryRules) -> Constants:
    """Give the rate at which equal pages are looked for by a profile.

    Where none is published, a machine's pages are scanned as ESX does.
    """
    if not rules.scan_pages_s:
        return Constants()
    if rules.scanner == "host":
        return Constants(scan_host=float(rules.scan_pages_s))
    return Constants(scan_rate=float(rules.scan_pages_s))


class MachineMemory:
    """The memory manager of one host.

    Parameters
    ----------
    spec : HostSpec
        The host: ``memory`` and ``memory_for_host``.
    profile : Profile
        Its hypervisor.
    seed : int
        Of the samples of working sets.

    Attributes
    ----------
    model : HostMemory
        The pages of the host.
    """

    def __init__(self, spec: HostSpec, profile: Profile, seed: int) -> None:
        rules = profile.memory_rules()
        self.rules, self.profile = rules, profile
        self.model = HostMemory(
            spec.memory // PAGE,
            policy_for(rules),
            kernel_pages=spec.memory_for_host // PAGE,
            tax=rules.idle_tax,
            constants=constants_for(rules),
            seed=seed,
        )
        self._growth: dict[str, float] = {}
        self._used: dict[str, float] = {}
        self._waited: dict[str, int] = {}

    def add(self, spec: VMSpec, overhead: int, tools: bool) -> None:
        """Give a virtual machine its memory, untouched but for what it says it has."""
        inputs = memory_inputs(spec, overhead, tools, self.profile, self.rules)
        load = MemoryLoadSpec() if spec.workload is None else spec.workload.memory
        zeros = round(load.zero * inputs["memory"])
        self.model.add(0, spec.name, content={"zero": zeros}, **inputs)
        self._growth[spec.name] = load.touch_rate / PAGE
        self._used[spec.name] = float(inputs["used"])
        self._waited[spec.name] = 0

    def reclaim(self, spec: VMSpec, overhead: int) -> None:
        """Give a virtual machine that is there other shares and bounds.

        Raises
        ------
        AdmissionError
            The reservation is not to be had; nothing has changed.
        """
        inputs = memory_inputs(spec, overhead, spec.tools, self.profile, self.rules)
        set_claim(self.model, spec.name, inputs)

    def remove(self, name: str) -> None:
        """Take a virtual machine's memory from it."""
        if name in self._growth:
            self.model.remove(name)
            del self._growth[name], self._used[name], self._waited[name]

    def step(self, dt_ns: int) -> dict[str, int]:
        """Let time pass; gives how long the vCPUs of each machine waited for pages, in ns."""
        model = self.model
        if not model.names:
            model.now_ns += dt_ns
            return {}
        growing = [row for row, name in enumerate(model.names) if self._growth[name]]
        if growing:
            used, memory = model.vms.used, model.vms.memory
            for row in growing:
                name = model.names[row]
                more = self._used[name] + self._growth[name] * dt_ns / SECOND
                self._used[name] = min(more, float(memory[row]))
                used[row] = int(self._used[name])
        model.step(dt_ns)
        waits = {}
        for name, total in zip(model.names, model.vms.swap_wait_ns.tolist(), strict=True):
            if total > self._waited[name]:
                waits[name] = total - self._waited[name]
                self._waited[name] = total
        return waits


def set_claim(model: HostMemory, name: str, inputs: dict[str, int]) -> None:
    """Give a machine of a memory manager the shares and bounds of other inputs.

    Raises
    ------
    AdmissionError
        The host has not so much to reserve; nothing has changed.
    """
    row, vms, hosts = model.row(name), model.vms, model.hosts
    more = inputs["reservation"] - int(vms.reservation[row])
    if more > 0:
        host = int(np.searchsorted(model.first, row, side="right")) - 1
        there = slice(int(model.first[host]), int(model.first[host + 1]))
        held = int((vms.reservation[there] + vms.overhead[there]).sum())
        left = int(hosts.total[host] - hosts.kernel[host]) - held
        if more > left:
            raise AdmissionError(f"host {host}, reservations", float(more), float(left), name)
    for key in ("shares", "reservation", "limit"):
        getattr(vms, key)[row] = inputs[key]


def memory_inputs(
    spec: VMSpec, overhead: int, tools: bool, profile: Profile, rules: MemoryRules
) -> dict[str, int]:
    """Give what `HostMemory.add` is told of a virtual machine.

    Parameters
    ----------
    spec : VMSpec
        The machine.
    overhead : int
        Bytes of its monitor.
    tools : bool
        Whether VMtools run in it.
    profile, rules : Profile, MemoryRules
        Of its host's hypervisor.
    """
    load = MemoryLoadSpec() if spec.workload is None else spec.workload.memory
    claim = memory_claim(profile, spec)
    memory = spec.memory // PAGE
    active = _active(spec, load)
    used = min(memory, max(active, spec.memory_consumed // PAGE))
    return {
        "memory": memory,
        "shares": max(1, claim.shares),
        "reservation": min(claim.minimum, claim.maximum) // PAGE,
        "limit": -1 if claim.maximum >= spec.memory else claim.maximum // PAGE,
        "used": used,
        "active": min(active, used),
        "tools": int(tools and "balloon" in rules.reclaim),
        "large_pages": int(spec.large_pages and rules.large_pages),
        "sharing": int(spec.page_sharing and rules.sharing != "none"),
        "compressible": round(load.compressible * 1000),
        "vcpus": spec.vcpus,
        "overhead": overhead // PAGE,
    }


def _active(spec: VMSpec, load: MemoryLoadSpec) -> int:
    if load.active is not None:
        return min(load.active, spec.memory) // PAGE
    if load.active_fraction is not None:
        return int(load.active_fraction * spec.memory) // PAGE
    return min(spec.memory_active, spec.memory) // PAGE
