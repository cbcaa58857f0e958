"""Virtual machines of a scenario: what is random about them gets seeds of its own."""

from __future__ import annotations

import hashlib

from pyvirt.spec import VMSpec

__all__ = ["derived", "seeded"]


def derived(seed: int, name: str) -> int:
    """Give a seed for something by its name, so that more of the others changes nothing for it."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return int.from_bytes(digest[:4], "little") >> 1


def seeded(vm: VMSpec, seed: int) -> VMSpec:
    """Give a virtual machine whose demand and addresses have seeds."""
    work = vm.workload
    if work is None:
        return vm
    if work.cpu.seed is None:
        work = work.replace(cpu=work.cpu.replace(seed=derived(seed, vm.name)))
    if work.addresses is not None and work.addresses.seed is None:
        # the same stream in each VM is measured once
        stream = work.addresses.replace(seed=derived(seed, "addresses"))
        work = work.replace(addresses=stream)
    return vm.replace(workload=work)
