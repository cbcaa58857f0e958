"""What hosts that execute virtual machines have to offer to a scenario."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from pyvirt.machine.vm import VM
from pyvirt.machine.vmm import VMM
from pyvirt.spec import PoolSpec, VMSpec

__all__ = ["HOST_TIMES", "VM_TIMES", "Fleet"]

Ints = npt.NDArray[np.int64]

#: What `Fleet.vm_times` counts, in ns, as `Result.vms` has it.
VM_TIMES = (
    "run_ns",
    "ready_ns",
    "costop_ns",
    "limited_ns",
    "wait_ns",
    "idle_ns",
    "swap_wait_ns",
    "device_run_ns",
    "overhead_ns",
)
#: What `Fleet.host_times` counts, in ns, as `Result.hosts` has it.
HOST_TIMES = ("run_ns", "migration_ns", "console_ns")


class Fleet(Protocol):
    """All hosts: exact ones (`ExactFleet`), or ones that divide time (`DemandFleet`).

    Attributes
    ----------
    capacity_ns : ndarray of int64, shape (H,)
        CPU time that each host has in a second.
    """

    capacity_ns: Ints

    def advance(self, to_ns: int) -> None:
        """Let time pass on all hosts."""

    def set_state(self, host: int, state: str) -> None:
        """Say what a host is doing: one of `pyvirt.spec.cluster.STATES`."""

    def prepare(self, vm: VM, host: int) -> VMM:
        """Set aside what a machine reserves on a host; see `VMkernel.prepare`."""

    def forget(self, vmm: VMM, host: int) -> None:
        """Give that back."""

    def start(self, row: int, vmm: VMM, host: int, elapsed_ns: int, backlog: list[int]) -> None:
        """Let a machine run on a host that was prepared for it."""

    def stop(self, row: int) -> list[int]:
        """Let a machine no longer run; gives the work that its vCPUs had not done, in ns."""

    def stun(self, row: int) -> None:
        """Let a machine stand still."""

    def go_on(self, row: int) -> None:
        """End what `stun` began."""

    def reconfigure(self, row: int, spec: VMSpec) -> None:
        """Give a machine, whether it runs or not, the shares and bounds of another description.

        Raises
        ------
        AdmissionError
            A reservation is not to be had; nothing has changed.
        """

    def set_pools(self, pools: Sequence[Sequence[PoolSpec]]) -> None:
        """Give the pools of each host other shares and bounds.

        Raises
        ------
        AdmissionError
            What is reserved does not fit; nothing has changed.
        """

    def burden(self, host: int, cores: float) -> int:
        """Let a migration take so many cores of a host; gives its number."""

    def relieve(self, host: int, burden: int) -> None:
        """End that."""

    def begin_step(self, now_ns: int, end_ns: int) -> None:
        """Take over the demands of a step of the scenario."""

    def wait_for_pages(self, waits: list[tuple[int, int]], step_ns: int) -> None:
        """Let machines wait for pages, for so long in all vCPUs: what a memory step came to."""

    def see_paths(self) -> None:
        """Look at the storage paths anew."""

    def vm_times(self) -> dict[str, Ints]:
        """Give the times of `VM_TIMES` since the start, for each machine."""

    def host_times(self) -> dict[str, Ints]:
        """Give the times of `HOST_TIMES` since the start, for each host."""
