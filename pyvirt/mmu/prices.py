"""What all cost tables share: names, sources, checks, and what priced events look like."""

from __future__ import annotations

import difflib
import functools
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any, ClassVar, Self

from pyvirt.errors import InvalidTypeError, InvalidValueError
from pyvirt.mmu.presets import Source

__all__ = ["Cycles", "Groups", "Prices", "known"]

#: Classes of events by the name of their group.
Groups = Mapping[str, tuple[str, ...]]


def known(name: object, accepted: Any, message: str) -> None:
    """Refuse a name that is not among the accepted, with the nearest that are."""
    if name not in accepted:
        near = difflib.get_close_matches(str(name), accepted, 3, 0.5) or sorted(accepted)
        raise InvalidValueError(f"{message} {name!r:.80}; nearest: {', '.join(near)}")


@dataclass(frozen=True, slots=True)
class Cycles:
    """What events cost.

    Attributes
    ----------
    total : float
        Cycles.
    breakdown : dict of str to float
        Cycles by class, those that happened and have a cost.
    events : dict of str to int
        How often each class happened, with or without a cost.
    members : mapping of str to tuple of str
        The classes of each group.
    """

    total: float
    breakdown: dict[str, float]
    events: dict[str, int]
    members: Groups

    @property
    def groups(self) -> dict[str, float]:
        """Cycles by group of classes, zeros included: the bars of a plot."""
        return {
            group: sum(self.breakdown.get(name, 0) for name in members)
            for group, members in self.members.items()
        }

    def __add__(self, other: Cycles) -> Cycles:
        """Put two kinds of events together; no class may be in both."""
        if not isinstance(other, Cycles):
            return NotImplemented
        both = self.events.keys() & other.events.keys() | self.members.keys() & other.members.keys()
        if both:
            raise InvalidValueError(f"both have {', '.join(sorted(both))}")
        return Cycles(
            self.total + other.total,
            {**self.breakdown, **other.breakdown},
            {**self.events, **other.events},
            {**self.members, **other.members},
        )


class _Table(Mapping[str, float]):
    """Costs that cannot change, so that a model has a hash."""

    __slots__ = ("_items",)

    def __init__(self, items: Mapping[str, float], classes: tuple[str, ...]) -> None:
        self._items = {name: items[name] for name in classes if name in items}

    def __getitem__(self, name: str) -> float:
        return self._items[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __hash__(self) -> int:
        return hash(tuple(self._items.items()))

    def __repr__(self) -> str:
        return repr(self._items)


@dataclass(frozen=True, slots=True)
class Prices:
    """Cycles for each class of one kind of events; see `CostModel` and `ExitCosts`."""

    #: Where the tables of this kind are, and what one is called.
    _folder: ClassVar[Path]
    _noun: ClassVar[str]
    #: The classes of events, by the group that a plot shows, and in one row.
    _groups: ClassVar[Groups]
    _classes: ClassVar[tuple[str, ...]]

    name: str
    costs: Mapping[str, float] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise InvalidTypeError(
                f"name must be the name of {self._noun} table, got {self.name!r:.80}"
            )
        costs = self._load(self.name)[0] if self.costs is None else self.costs
        if not isinstance(costs, Mapping):
            raise InvalidTypeError(f"costs must map classes to cycles, got {costs!r:.80}")
        entries: Mapping[str, Any] = costs
        for key, value in entries.items():
            known(key, self._classes, "costs has an unknown class")
            if isinstance(value, bool) or not isinstance(value, Real):
                raise InvalidTypeError(f"costs[{key!r}] must be a number, got {value!r:.80}")
            if not 0 <= float(value) < float("inf"):
                raise InvalidValueError(f"costs[{key!r}] must be finite and >= 0, got {value}")
        object.__setattr__(self, "costs", _Table(costs, self._classes))

    def __or__(self, other: Self) -> Self:
        if type(other) is not type(self):
            return NotImplemented
        return type(self)(f"{self.name}|{other.name}", {**self.table, **other.table})

    @property
    def table(self) -> Mapping[str, float]:
        """The costs, by class in the order of the classes."""
        assert self.costs is not None  # __post_init__ has filled it in
        return self.costs

    def price(self, events: dict[str, int]) -> Cycles:
        """Give each class of events its cost."""
        breakdown = {
            name: count * cost
            for name, cost in self.table.items()
            if cost and (count := events.get(name, 0))
        }
        return Cycles(sum(breakdown.values()), breakdown, events, self._groups)

    def sources(self) -> list[Source]:
        """Give the source of every cost of the table with this name.

        Raises
        ------
        InvalidValueError
            For a model that is not, unchanged, one of the tables.
        """
        costs, found = self._load(self.name)
        if costs != dict(self.table):
            raise InvalidValueError(f"the costs of {self.name!r} are not those of that table")
        return list(found)

    @classmethod
    def joined(cls, names: str) -> Self:
        """Give a table, or several that are joined: ``"a|b"``.

        Raises
        ------
        InvalidValueError
            For a name that no table has.
        """
        first, *rest = (cls(name.strip()) for name in names.split("|"))
        for other in rest:
            first = first | other
        return first

    @classmethod
    def names(cls) -> list[str]:
        """Give the names of the tables, in alphabetical order."""
        return sorted(
            entry.name.removesuffix(".toml")
            for entry in cls._folder.iterdir()
            if entry.name.endswith(".toml")
        )

    @classmethod
    def describe(cls, name: str) -> tuple[str, tuple[str, ...]]:
        """Give the title and the notes of a table.

        Raises
        ------
        InvalidValueError
            For a name that no table has.
        """
        known(name, cls.names(), f"no {cls._noun.partition(' ')[2]} table is named")
        data = _read(cls._folder / f"{name}.toml")
        return data["title"], tuple(data["notes"])

    @classmethod
    def _load(cls, name: str) -> tuple[dict[str, float], tuple[Source, ...]]:
        """Give the costs of a table, and where they come from."""
        known(name, cls.names(), f"no {cls._noun.partition(' ')[2]} table is named")
        data = _read(cls._folder / f"{name}.toml")
        citations = data["sources"]
        found = tuple(
            Source(
                key,
                entry["value"],
                citations.get(entry["source"], entry["source"]),
                entry.get("recalled", False),
            )
            for key, entry in data["costs"].items()
        )
        return {entry.field: entry.value for entry in found}, found


@functools.cache
def _read(path: Path) -> dict[str, Any]:
    """Parse a table."""
    return tomllib.loads(path.read_text("utf-8"))
