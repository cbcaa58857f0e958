"""Profiles of hypervisors: which scheduler, memory manager and monitor they have, as data."""

from __future__ import annotations

import difflib
import functools
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pyvirt.errors import InvalidTypeError, InvalidValueError
from pyvirt.sched.policies import PLUGS
from pyvirt.sched.policy_options import INLINED
from pyvirt.spec import HostSpec, MemoryPolicySpec, VMSpec

__all__ = ["GuestType", "MemoryRules", "Profile", "Scheduling", "Source", "load", "names"]

_FOLDER = Path(__file__).with_name("profiles")
_PROSE = ("title", "notes", "sources")


class Source(NamedTuple):
    """One value and where it comes from.

    Attributes
    ----------
    path : str
        Such as ``"memory.idle_tax"``.
    value : object
        A number, text, true or false, or a list of texts.
    source : str
        A document, or words that say why it was taken.
    recalled : bool
        Nobody has checked it against its source, or it has none.
    """

    path: str
    value: Any
    source: str
    recalled: bool


@dataclass(frozen=True, slots=True)
class Scheduling:
    """How a hypervisor schedules.

    Attributes
    ----------
    name : str
        As the hypervisor calls it: ``"credit2"``, ``"core"``.
    policy : str
        The policy of `pyvirt.sched`.
    options : dict
        Arguments of the policy; for those that are built in, of `pyvirt.sched.Scheduler`.
    """

    name: str
    policy: str
    options: Mapping[str, Any]

    def make(self, **changes: Any) -> tuple[Any, dict[str, Any]]:
        """Give what `pyvirt.sched.Scheduler` takes as its policy, and arguments beside it.

        Parameters
        ----------
        **changes
            Options in place of those of the profile, or beside them.
        """
        options = {**self.options, **changes}
        if self.policy in INLINED:
            return self.policy, options
        make: Any = PLUGS[self.policy]
        return make(**options), {}


@dataclass(frozen=True, slots=True)
class GuestType:
    """What a hypervisor makes of a virtual machine.

    Attributes
    ----------
    name : str
        ``"pv"``, ``"pvh"`` and ``"hvm"`` of Xen; else ``"vm"``.
    modes : tuple of str
        Monitor modes that it may have, best first: ``"HWMMU"``, ``"HV"``, ``"BT"``, ``"PV"``.
    emulated_devices : bool
        Whether it has devices that are emulated, such as a CD drive.
    """

    name: str
    modes: tuple[str, ...]
    emulated_devices: bool


@dataclass(frozen=True, slots=True)
class MemoryRules:
    """How a hypervisor deals with a host's memory.

    Attributes
    ----------
    overcommit : bool
        Whether machines may have more than there is.
    states : str
        ``"esx2002"``, ``"esx6"``, or ``"none"``: no thresholds of its own.
    reclaim : tuple of str
        What it does when memory is short, in order: ``"share"``, ``"balloon"``, ``"compress"``,
        ``"swap"``, ``"block"``.
    idle_tax : float
        From 0 to below 1.
    sharing : {"none", "within", "all"}
        Whether equal pages become one: not at all, within a machine, or between machines.
    scan_pages_s : int
        Pages that it compares a second; 0: nothing is scanned, or its rate is not published.
    scanner : {"machine", "host"}
        Whether each machine has a scanner of that rate, or all of a host have one.
    balloon_most, compression_most : float
        Parts of a machine's memory that its balloon may take, and compressed pages.
    large_pages : bool
        Whether machines are backed by pages of 2 MiB.
    """

    overcommit: bool
    states: str
    reclaim: tuple[str, ...]
    idle_tax: float
    sharing: str
    scan_pages_s: int
    scanner: str
    balloon_most: float
    compression_most: float
    large_pages: bool


class Profile:
    """A hypervisor, as its file has it; see `load`.

    Attributes
    ----------
    name, title : str
        ``"xen"``, ``"Xen"``.
    notes : tuple of str
        What the values do not say.
    sources : tuple of Source
        Each value with its source.
    """

    def __init__(self, name: str, data: Mapping[str, Any]) -> None:
        self.name = name
        self.title = str(data["title"])
        self.notes = tuple(data["notes"])
        self.sources = tuple(_values(data, data["sources"]))
        self._values = {each.path: each.value for each in self.sources}
        self._guests = tuple(data["guests"])
        self._schedulers = tuple(data["schedulers"])

    def __repr__(self) -> str:
        return f"<Profile {self.name}: {self.title}>"

    def __getitem__(self, path: str) -> Any:
        """Give a value, as ``profile["memory.idle_tax"]``."""
        if path not in self._values:
            near = difflib.get_close_matches(str(path), self._values, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise InvalidValueError(
                f"path must name a value of the profile {self.name}, got {path!r:.80}{hint}"
            )
        return self._values[path]

    def table(self, path: str) -> dict[str, Any]:
        """Give the values below a path, by the rest of their names.

        Raises
        ------
        InvalidValueError
            There is no such table.
        """
        stem = f"{path}."
        made = {
            name.removeprefix(stem): value
            for name, value in self._values.items()
            if name.startswith(stem)
        }
        if not made:
            raise InvalidValueError(
                f"path must name a table of the profile {self.name}, got {path!r:.80}"
            )
        return made

    @property
    def schedulers(self) -> tuple[str, ...]:
        """The names of its schedulers."""
        return self._schedulers

    def scheduling(self, scheduler: str | None = None) -> Scheduling:
        """Give one of its schedulers.

        Parameters
        ----------
        scheduler : str, optional
            One of `schedulers`; default: the one that it has by default.

        Raises
        ------
        InvalidValueError
            It has no such scheduler.
        """
        name = self["scheduler.default"] if scheduler is None else scheduler
        if name not in self._schedulers:
            raise InvalidValueError(
                f"scheduler must be one of {', '.join(self._schedulers)} under {self.title}, "
                f"got {name!r:.80}"
            )
        stem = f"schedulers.{name}.options."
        options = {
            path.removeprefix(stem): value
            for path, value in self._values.items()
            if path.startswith(stem)
        }
        return Scheduling(name, self[f"schedulers.{name}.policy"], options)

    def guest(self, vm: VMSpec) -> GuestType:
        """Say what becomes of a virtual machine.

        Of the kinds of guests the first is taken that can be executed as the machine asks, whose
        drivers the machine has (`VMSpec.tools`), and that has the devices it asks for.

        Raises
        ------
        InvalidValueError
            There is no such kind.
        """
        if not isinstance(vm, VMSpec):
            raise InvalidTypeError(f"vm must be a VMSpec, not {vm!r:.80}")
        fitting = [name for name in self._guests if vm.exec in self[f"guests.{name}.exec"]]
        if not fitting:
            known = dict.fromkeys(
                word for name in self._guests for word in self[f"guests.{name}.exec"]
            )
            raise InvalidValueError(
                f"exec of VM {vm.name!r:.80} must be one of {', '.join(known)} under {self.title}, "
                f"got {vm.exec!r}"
            )
        for name in fitting:
            values = self.table(f"guests.{name}")
            if values["needs_tools"] > vm.tools or bool(vm.devices) > values["emulated_devices"]:
                continue
            return GuestType(name, tuple(values["modes"]), values["emulated_devices"])
        raise InvalidValueError(
            f"devices of VM {vm.name!r:.80} must be empty, and tools true, where exec is "
            f"{vm.exec!r} under {self.title}, got {list(vm.devices)!r:.80} and {vm.tools}"
        )

    def memory_rules(self, changes: MemoryPolicySpec | None = None) -> MemoryRules:
        """Say how a host's memory is dealt with.

        Parameters
        ----------
        changes : MemoryPolicySpec, optional
            Of a scenario; what is None there is as the profile has it.
        """
        values = self.table("memory")
        policy = MemoryPolicySpec() if changes is None else changes
        reclaim = list(values["reclaim"])
        for means, wanted in (("balloon", policy.balloon), ("compress", policy.compression)):
            if wanted is False and means in reclaim:
                reclaim.remove(means)
            if wanted and means not in reclaim:
                raise InvalidValueError(
                    f"{'balloon' if means == 'balloon' else 'compression'} of memory policy must "
                    f"be left out or false under {self.title}, which does not do it, got True"
                )
        sharing = values["sharing"] if policy.sharing is None else policy.sharing
        if sharing == "none" and "share" in reclaim:
            reclaim.remove("share")
        return MemoryRules(
            values["overcommit"],
            values["states"] if policy.states is None else policy.states,
            tuple(reclaim),
            values["idle_tax"] if policy.idle_tax is None else policy.idle_tax,
            sharing,
            values["scan_pages_s"],
            values["scanner"],
            values["balloon_most"],
            values["compression_most"],
            values["large_pages"],
        )

    def check(self, vm: VMSpec) -> None:
        """Check that a virtual machine is within the hypervisor's limits, and can be executed.

        Raises
        ------
        InvalidValueError
            It is not; the message names the limit.
        """
        self.guest(vm)
        for field in ("vcpus", "memory"):
            most = self[f"limits.{field}"]
            if getattr(vm, field) > most:
                raise InvalidValueError(
                    f"{field} of VM {vm.name!r:.80} must be at most {most} under {self.title}, "
                    f"got {getattr(vm, field)}"
                )


def names() -> tuple[str, ...]:
    """Give the names of all profiles, sorted."""
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.toml")))


@functools.cache
def _read(name: str) -> Profile:
    return Profile(name, tomllib.loads((_FOLDER / f"{name}.toml").read_text(encoding="utf-8")))


def load(name: str | HostSpec) -> Profile:
    """Read the profile of a hypervisor.

    Parameters
    ----------
    name : str or HostSpec
        One of `names`; or a host, whose hypervisor is meant.

    Raises
    ------
    InvalidValueError
        There is no such profile.
    """
    wanted = name.hypervisor if isinstance(name, HostSpec) else name
    known = names()
    if wanted not in known:
        near = difflib.get_close_matches(str(wanted), known, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise InvalidValueError(
            f"hypervisor must be one of {', '.join(known)}, got {wanted!r:.80}{hint}"
        )
    return _read(wanted)


def _values(data: Mapping[str, Any], sources: Mapping[str, str], stem: str = "") -> list[Source]:
    """Flatten the tables: a value is a table that has a ``value``."""
    made: list[Source] = []
    for key, entry in data.items():
        if not stem and key in _PROSE:
            continue
        path = f"{stem}{key}"
        if "value" in entry:
            source = entry["source"]
            recalled = bool(entry.get("recalled", False))
            made.append(Source(path, entry["value"], sources.get(source, source), recalled))
        else:
            made += _values(entry, sources, f"{path}.")
    return made
