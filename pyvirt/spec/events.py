"""What happens to a cluster in a scenario: faults, and what operators do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pyvirt.spec.base import Spec
from pyvirt.spec.fields import label, one_of, refuse, text, time

__all__ = ["ACTIONS", "FAULTS", "EventSpec", "FaultSpec"]

#: What fails, and what its target names: ``host/adapter`` is an adapter of a host.
FAULTS = {
    "host": "host",
    "isolation": "host",
    "adapter": "host/adapter",
    "cable": "host/adapter",
    "fabric": "array/fabric",
    "processor": "array/processor",
    "array": "array",
    "all-paths-down": "host/datastore or datastore",
    "device-lost": "host/datastore or datastore",
    "guest": "vm",
}
#: What is done, what its target names, and what ``to`` names.
ACTIONS = {
    "power-on": ("vm", "host, or empty"),
    "power-off": ("vm", ""),
    "reset": ("vm", ""),
    "suspend": ("vm", ""),
    "resume": ("vm", "host, or empty"),
    "snapshot": ("vm", "snapshot"),
    "revert": ("vm", "snapshot"),
    "consolidate": ("vm", ""),
    "migrate": ("vm", "host"),
    "migrate-storage": ("vm", "datastore"),
    "enter-maintenance": ("host", ""),
    "exit-maintenance": ("host", ""),
    "enter-standby": ("host", ""),
    "exit-standby": ("host", ""),
}


@dataclass(frozen=True, slots=True)
class FaultSpec(Spec):
    """Something that fails.

    Attributes
    ----------
    at_ns : int
        When, from the start.
    what : str
        One of `FAULTS`: a host, its links to all networks, an adapter or its cable, the fabric or
        the storage processor of a number from 0, an array, the paths to a datastore
        (``"all-paths-down"``), the datastore for good (``"device-lost"``), or a VM's guest.
    target : str
        Which: a name, or two with ``/`` between: ``"h0/vmhba1"``, ``"san/0"``, ``"h0/store"``.
    recover_after_ns : int or None
        How long it lasts; None: for good.
    """

    WHAT: ClassVar[str] = "fault"

    at_ns: int = time(None)
    what: str = one_of(None, tuple(FAULTS))
    target: str = label()
    recover_after_ns: int | None = time(None, least=1, optional=True)

    def check(self, whose: str) -> None:
        """Check that what is lost for good does not recover."""
        if self.what == "device-lost" and self.recover_after_ns is not None:
            refuse(
                f"recover_after of {whose} must be left out where a device is lost for good, "
                f"got {self.recover_after_ns}",
                "recover_after_ns",
            )


@dataclass(frozen=True, slots=True)
class EventSpec(Spec):
    """Something that an operator does.

    Attributes
    ----------
    at_ns : int
        When, from the start.
    what : str
        One of `ACTIONS`.
    target : str
        The VM or the host.
    to : str
        The host or the datastore that a VM moves to, or a snapshot's name.
    """

    WHAT: ClassVar[str] = "event"

    at_ns: int = time(None)
    what: str = one_of(None, tuple(ACTIONS))
    target: str = label()
    to: str = text()

    def check(self, whose: str) -> None:
        """Check that `to` stands where it means something."""
        wanted = ACTIONS[self.what][1]
        needed = bool(wanted) and "empty" not in wanted
        if bool(self.to) > bool(wanted) or needed > bool(self.to):
            accepted = f"name a {wanted}" if wanted else "be empty"
            refuse(
                f"to of {whose} must {accepted} where what is {self.what!r}, got {self.to!r:.80}",
                "to",
            )
