"""What happens to a cluster in a scenario: faults, and what operators do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from pyvirt.spec.base import Spec, fields_of
from pyvirt.spec.fields import (
    frequency,
    label,
    nbytes,
    one_of,
    part,
    refuse,
    share,
    some_of,
    text,
    time,
)

__all__ = ["ACTIONS", "CLAIMS", "FAULTS", "ClaimSpec", "EventSpec", "FaultSpec"]

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
    "reconfigure": ("vm", ""),
    "reconfigure-pool": ("pool", ""),
    "enter-maintenance": ("host", ""),
    "exit-maintenance": ("host", ""),
    "enter-standby": ("host", ""),
    "exit-standby": ("host", ""),
}
#: Those that have a `ClaimSpec`.
CLAIMS = ("reconfigure", "reconfigure-pool")


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
class ClaimSpec(Spec):
    """What a VM or a pool is given from now on; what is None stays as it was.

    Attributes
    ----------
    cpu, mem : int, or {"low", "normal", "high"}, or None
        Shares.
    cpu_reservation, cpu_limit : float or None
        MHz.
    memory_reservation, memory_limit : int or None
        Bytes.
    unlimited : tuple of {"cpu", "memory"}
        Of what there is no limit any more.
    """

    WHAT: ClassVar[str] = "claim"

    cpu: int | str | None = share(None, optional=True)
    mem: int | str | None = share(None, optional=True)
    cpu_reservation: float | None = frequency(None, optional=True)
    cpu_limit: float | None = frequency(None, optional=True)
    memory_reservation: int | None = nbytes(None, optional=True)
    memory_limit: int | None = nbytes(None, optional=True)
    unlimited: tuple[str, ...] = some_of(("cpu", "memory"))

    def check(self, whose: str) -> None:
        """Check that what has no limit has none."""
        for at, resource in enumerate(self.unlimited):
            limit = getattr(self, f"{resource}_limit")
            if limit is not None:
                refuse(
                    f"unlimited of {whose} must not name {resource!r} where {resource}_limit is "
                    f"given, got {limit:g}",
                    *("unlimited", at),
                )

    def changes(self) -> dict[str, Any]:
        """Give the fields of a `Claimant` that change, with their new values."""
        names = [name for name in fields_of(type(self)) if name != "unlimited"]
        made = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        return made | {f"{resource}_limit": None for resource in self.unlimited}


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
        The VM, the host or the pool.
    to : str
        The host or the datastore that a VM moves to, or a snapshot's name.
    claim : ClaimSpec or None
        What a VM or pool that is reconfigured is given.
    """

    WHAT: ClassVar[str] = "event"

    at_ns: int = time(None)
    what: str = one_of(None, tuple(ACTIONS))
    target: str = label()
    to: str = text()
    claim: ClaimSpec | None = part(ClaimSpec)

    def check(self, whose: str) -> None:
        """Check that `to` and `claim` stand where they mean something."""
        given = None if self.claim is None else self.claim.changes()
        if (not given) if self.what in CLAIMS else (given is not None):
            words = "change something" if self.what in CLAIMS else "be left out"
            refuse(
                f"claim of {whose} must {words} where what is {self.what!r}, got {given!r:.80}",
                "claim",
            )
        wanted = ACTIONS[self.what][1]
        needed = bool(wanted) and "empty" not in wanted
        if bool(self.to) > bool(wanted) or needed > bool(self.to):
            accepted = f"name a {wanted}" if wanted else "be empty"
            refuse(
                f"to of {whose} must {accepted} where what is {self.what!r}, got {self.to!r:.80}",
                "to",
            )
