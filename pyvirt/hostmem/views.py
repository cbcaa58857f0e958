"""Columns and single VMs by name: thin views of the arrays of a `HostMemory`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pyvirt.errors import InvalidTypeError, InvalidValueError
from pyvirt.hostmem.layout import CONFIGURED, HOST_ROWS, SETTINGS, VM_REALS, VM_ROWS

if TYPE_CHECKING:
    from pyvirt.hostmem.memory import HostMemory

__all__ = ["Columns", "VMView"]

FIXED = frozenset({"memory", "salt"})
_PLACES = {name: ("v", row) for row, name in enumerate(VM_ROWS)}
_REALS = {name: ("r", row) for row, name in enumerate(VM_REALS)}
_HOSTS = {name: ("h", row) for row, name in enumerate(HOST_ROWS)}


class Columns:
    """Rows of arrays by name, as attributes and as items.

    Inputs may be written in place (``columns.used[:] = 1000``); all else, and `memory` and `salt`,
    can only be read.
    """

    __slots__ = ("_owner", "_places")

    def __init__(self, owner: HostMemory, places: dict[str, tuple[str, int]]) -> None:
        self._owner = owner
        self._places = places

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        """Give one column; KeyError's kin for a name that is none."""
        try:
            array, row = self._places[name]
        except (KeyError, TypeError):
            raise InvalidValueError(
                f"there is no column {name!r:.80}; there are {', '.join(self._places)}"
            ) from None
        column: npt.NDArray[Any] = self._owner._array(array)[row]
        if array != "v" or row >= CONFIGURED or name in FIXED:
            column = column[:]
            column.flags.writeable = False
        return column

    def __getattr__(self, name: str) -> npt.NDArray[Any]:
        if name.startswith("__") or name not in self._places:
            raise AttributeError(f"no column {name!r:.80}; there are {', '.join(self._places)}")
        return self[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __dir__(self) -> list[str]:
        return sorted(self._places)

    def copy(self) -> dict[str, npt.NDArray[Any]]:
        """Give copies of all columns by name."""
        return {name: self[name].copy() for name in self._places}


def vm_columns(owner: HostMemory) -> Columns:
    """Give the columns of VMs."""
    return Columns(owner, {**_PLACES, **_REALS})


def host_columns(owner: HostMemory) -> Columns:
    """Give the columns of hosts."""
    return Columns(owner, _HOSTS)


class VMView:
    """One VM, by its name; good as long as it is on a host.

    Attributes are the names of `HostMemory.vms`, as single numbers; inputs may be assigned.
    """

    __slots__ = ("_owner", "name")

    name: str

    def __init__(self, owner: HostMemory, name: str) -> None:
        object.__setattr__(self, "_owner", owner)
        object.__setattr__(self, "name", name)

    @property
    def host(self) -> int:
        """The number of its host."""
        owner: HostMemory = object.__getattribute__(self, "_owner")
        return int(np.searchsorted(owner.first, owner.row(self.name), side="right")) - 1

    def content(self, kind: str, pages: int | None = None) -> int:
        """Give, or set, how many of its pages are of a class of contents."""
        owner: HostMemory = object.__getattribute__(self, "_owner")
        column = owner.content(kind)
        if pages is not None:
            column[owner.row(self.name)] = whole(pages, f"content {kind!r}")
        return int(column[owner.row(self.name)])

    def __getattr__(self, name: str) -> int | float:
        if name.startswith("__") or name not in {**_PLACES, **_REALS}:
            raise AttributeError(f"VMs have no {name!r:.80}")
        owner: HostMemory = object.__getattribute__(self, "_owner")
        return owner.vms[name][owner.row(self.name)].item()

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in SETTINGS or name in FIXED:
            names = ", ".join(key for key in SETTINGS if key not in FIXED)
            raise AttributeError(f"{name!r:.80} of a VM cannot be set; what can: {names}")
        setting = SETTINGS[name]
        number = whole(value, name, setting.least, setting.most)
        owner: HostMemory = object.__getattribute__(self, "_owner")
        owner.vms[name][owner.row(self.name)] = number

    def __repr__(self) -> str:
        return f"<VM {self.name!r:.80} on host {self.host}: {self.memory:,} pages>"


def whole(value: Any, name: str, least: int = 0, most: int = 2**53 - 1) -> int:
    """Check an integer; the messages call it `name`."""
    if isinstance(value, (bool, np.bool_, str)) or np.ndim(value) != 0:
        raise InvalidTypeError(f"{name} must be an integer, not {value!r:.80}")
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        raise InvalidTypeError(f"{name} must be an integer, not {value!r:.80}") from None
    if number != value:
        raise InvalidTypeError(f"{name} must be a whole number, got {value!r:.80}")
    if not least <= number <= most:
        raise InvalidValueError(f"{name} must be in [{least:,}, {most:,}], got {value!r}")
    return number
