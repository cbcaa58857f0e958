"""A virtual machine: hardware, disks, snapshots, power states, VMtools."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pyvirt.errors import InvalidTypeError, InvalidValueError, PowerStateError
from pyvirt.machine.disks import Disk
from pyvirt.machine.snapshots import Snapshot, SnapshotTree
from pyvirt.spec import VMSpec

__all__ = ["STATES", "TRANSITIONS", "VM"]

STATES = ("off", "on", "suspended")
#: What may be done in which power state, and what it leads to.
TRANSITIONS: Mapping[tuple[str, str], str] = {
    ("off", "power_on"): "on",
    ("suspended", "power_on"): "on",
    ("on", "power_off"): "off",
    ("suspended", "power_off"): "off",
    ("on", "shut_down"): "off",
    ("on", "restart"): "on",
    ("on", "reset"): "on",
    ("on", "suspend"): "suspended",
}
#: What VMtools in the guest carry out.
BY_TOOLS = ("shut_down", "restart")


class VM:
    """A virtual machine, on a host or not.

    Parameters
    ----------
    spec : VMSpec
        What it is.
    **fields
        Or the fields of `VMSpec`, if `spec` is its name.

    Attributes
    ----------
    spec : VMSpec
        Its description.
    state : {"off", "on", "suspended"}
        Its power state; a `VMkernel` changes it.
    host : str
        Where it runs, or is suspended; empty: nowhere.
    disks : tuple of Disk
        Those of its description.
    snapshots : SnapshotTree
        What was frozen of them.

    Examples
    --------
    >>> from pyvirt.machine import VM
    >>> vm = VM("web", vcpus=2, memory="4GiB")
    >>> vm.state, vm.spec.memory
    ('off', 4294967296)
    """

    def __init__(self, spec: VMSpec | str, **fields: Any) -> None:
        if isinstance(spec, str):
            spec = VMSpec(spec, **fields)
        elif fields:
            raise InvalidTypeError(f"fields must not be given beside a VMSpec, got {fields!r:.80}")
        if not isinstance(spec, VMSpec):
            raise InvalidTypeError(f"spec must be a VMSpec or a name, got {spec!r:.80}")
        self.spec = spec
        self.state = "off"
        self.host = ""
        self.disks = tuple(
            Disk(one.name, one.size, one.provisioning, one.datastore) for one in spec.disks
        )
        self.snapshots = SnapshotTree()

    @property
    def name(self) -> str:
        """Its name."""
        return self.spec.name

    @property
    def tools_running(self) -> bool:
        """Whether VMtools run: they are installed, and so does the machine."""
        return self.spec.tools and self.state == "on"

    def disk(self, name: str) -> Disk:
        """Give a disk by its name.

        Raises
        ------
        InvalidValueError
            There is none.
        """
        for one in self.disks:
            if one.name == name:
                return one
        there = ", ".join(one.name for one in self.disks) or "none"
        raise InvalidValueError(f"VM {self.name!r} has no disk {name!r:.80}; there are {there}")

    # --- power ---

    def check(self, action: str) -> str:
        """Say which power state an action leads to.

        Raises
        ------
        PowerStateError
            The present state does not permit it, or it needs VMtools that do not run.
        InvalidValueError
            An action that there is not.
        """
        actions = sorted({one for _, one in TRANSITIONS})
        if action not in actions:
            raise InvalidValueError(
                f"action must be one of {', '.join(actions)}, got {action!r:.80}"
            )
        if (self.state, action) not in TRANSITIONS:
            may = ", ".join(one for state, one in TRANSITIONS if state == self.state)
            raise PowerStateError(
                f"VM {self.name!r} is {self.state} and does not {action}: it may {may}"
            )
        if action in BY_TOOLS and not self.tools_running:
            raise PowerStateError(
                f"VM {self.name!r} does not {action} without VMtools (tools): "
                "power it off or reset it"
            )
        return TRANSITIONS[self.state, action]

    def move(self, action: str, host: str = "") -> None:
        """Come to the power state that an action leads to; the `VMkernel` carries it out."""
        self.state = self.check(action)
        self.host = "" if self.state == "off" else host or self.host

    # --- snapshots ---

    def take_snapshot(
        self, name: str, *, description: str = "", memory: bool = False, now_ns: int = 0
    ) -> Snapshot:
        """Take a snapshot of its disks, and of its memory if it runs and that is asked for.

        Raises
        ------
        PowerStateError
            Memory is asked for, and the machine is off.
        """
        if memory and self.state == "off":
            raise PowerStateError(f"VM {self.name!r} is off and has no memory for a snapshot")
        return self.snapshots.take(
            self.disks, name, description=description, memory=memory, now_ns=now_ns
        )

    def revert(self, which: int | str) -> Snapshot:
        """Go back to a snapshot: what its disks have held since is lost.

        Raises
        ------
        PowerStateError
            It runs: power it off first. (`VMkernel.revert` does that.)
        """
        if self.state == "on":
            raise PowerStateError(f"VM {self.name!r} is on and does not revert: power it off first")
        found = self.snapshots.revert(self.disks, which)
        # with memory there is a state to go on from
        self.state = "suspended" if found.memory else "off"
        if self.state == "off":
            self.host = ""
        return found

    def delete_snapshot(self, which: int | str, *, children: bool = False) -> int:
        """Delete a snapshot, whatever the power state; gives the blocks that were copied."""
        return self.snapshots.delete(self.disks, which, children=children)

    def consolidate(self) -> int:
        """Delete all snapshots; gives the blocks that were copied."""
        return self.snapshots.consolidate(self.disks)

    def __repr__(self) -> str:
        where = f" on {self.host}" if self.host else ""
        return f"<VM {self.name} {self.state}{where}, {self.spec.vcpus} vCPUs>"
