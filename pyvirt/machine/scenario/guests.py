"""Virtual machines of a scenario: what is random about them gets seeds of its own."""

from __future__ import annotations

import hashlib
import os

from pyvirt.spec import VMSpec

__all__ = ["derived", "seeded"]


def derived(seed: int, name: str) -> int:
    """Give a seed for something by its name, so that more of the others changes nothing for it."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return int.from_bytes(digest[:4], "little") >> 1


def seeded(vm: VMSpec, seed: int, base: str = "") -> VMSpec:
    """Give a virtual machine whose demand and addresses have seeds, and files with their folder."""
    work = vm.workload
    if work is None:
        return vm
    cpu, stream = work.cpu, work.addresses
    if cpu.seed is None:
        cpu = cpu.replace(seed=derived(seed, vm.name))
    if cpu.file:
        cpu = cpu.replace(file=os.path.join(base, cpu.file))
    if stream is not None:
        if stream.seed is None:
            # the same stream in each VM is measured once
            stream = stream.replace(seed=derived(seed, "addresses"))
        if stream.file:
            stream = stream.replace(file=os.path.join(base, stream.file))
    return vm.replace(workload=work.replace(cpu=cpu, addresses=stream))
