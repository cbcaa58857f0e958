"""Virtual machines of a scenario: what is random about them gets seeds of its own."""

from __future__ import annotations

import hashlib
import os

from pyvirt.spec import GuestProgramSpec, VMSpec

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
    guest = work.guest
    if guest is not None:
        # nothing of it is random
        return vm.replace(workload=work.replace(guest=_from(guest, base)))
    return vm.replace(workload=work.replace(cpu=cpu, addresses=stream))


def _from(guest: GuestProgramSpec, base: str) -> GuestProgramSpec:
    """Give a program whose files have their folder."""
    names = {name: getattr(guest, name) for name in ("image", "port", "disk")}
    if guest.image in ("", "kernel"):
        del names["image"]
    return guest.replace(**{name: os.path.join(base, file) for name, file in names.items() if file})
