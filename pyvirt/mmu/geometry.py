"""What an MMU caches translations in, as data: TLBs, paging-structure caches, nested TLB."""

from __future__ import annotations

import difflib
import operator
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, Literal, SupportsIndex

from pyvirt.errors import InvalidTypeError, InvalidValueError

__all__ = ["KINDS", "PAGES", "POLICIES", "Cache", "Geometry", "TlbArray", "WalkCache"]

#: Page sizes, in the order in which an array is probed.
PAGES = ("4K", "2M", "1G")
#: Kinds of access.
KINDS = ("fetch", "load", "store")
#: Replacement policies.
POLICIES = ("lru", "tree-plru", "bit-plru", "fifo", "random")
#: Organisations of paging-structure caches.
WALK_CACHES = ("split", "page-table", "path")
#: Levels of entries that a split cache can hold: 2 PDE, 3 PDPTE, 4 PML4E, 5 PML5E.
WALK_LEVELS = (2, 3, 4, 5)

MOST_ENTRIES = 1 << 20
MOST_WAYS = 4096
MOST_PLRU_WAYS = 64
MOST_ARRAYS = 16
MOST_LEVELS = 7

_XOR = re.compile(r"xor-([1-9][0-9]?)")


@dataclass(frozen=True, slots=True)
class Cache:
    """A set-associative array.

    Parameters
    ----------
    entries : int
        Entries in all sets together, 1 to 2**20; the number of sets need not be a power of two.
    ways : int, default 0
        Entries of one set, 1 to 4096; must divide `entries`. 0: fully associative, which becomes
        `entries`.
    policy : {"lru", "tree-plru", "bit-plru", "fifo", "random"}, default "lru"
        Which entry of a full set makes place. ``"tree-plru"`` needs a power of two of ways, and
        it and ``"bit-plru"`` allow at most 64.
    hash : str, default "linear"
        How a number finds its set: ``"linear"``, the number modulo the sets; or ``"xor-N"``
        with 2**N sets, the number's low N bits XORed with the N bits above them.

    Raises
    ------
    InvalidValueError, InvalidTypeError
        For an array that cannot be built.

    Examples
    --------
    >>> Cache(1536, 12).sets
    128
    """

    entries: int
    ways: int = 0
    policy: str = "lru"
    hash: str = "linear"

    def __post_init__(self) -> None:
        entries = _integer(self.entries, "entries", 1, MOST_ENTRIES)
        ways = _integer(self.ways, "ways", 0, MOST_WAYS) or entries
        _set(self, entries=entries, ways=ways)
        if ways > MOST_WAYS:
            raise InvalidValueError(
                f"entries={entries} fully associative: at most {MOST_WAYS} ways are accepted"
            )
        if entries % ways:
            raise InvalidValueError(f"ways={ways} does not divide entries={entries}")
        _choice(self.policy, "policy", POLICIES)
        if self.policy in ("tree-plru", "bit-plru") and ways > MOST_PLRU_WAYS:
            raise InvalidValueError(
                f'policy="{self.policy}" takes at most {MOST_PLRU_WAYS} ways, got ways={ways}'
            )
        if self.policy == "tree-plru" and ways & (ways - 1):
            raise InvalidValueError(
                f'policy="tree-plru" needs a power of two of ways, got ways={ways}'
            )
        self._check_hash()

    def _check_hash(self) -> None:
        """Refuse a hash that does not fit the number of sets."""
        accepted = '"linear", or "xor-N" where there are 2**N sets'
        _text(self.hash, "hash", accepted)
        if self.hash == "linear":
            return
        match = _XOR.fullmatch(self.hash)
        if match is None:
            raise InvalidValueError(f"hash must be {accepted}, got {self.hash!r:.80}")
        if self.sets != 1 << int(match.group(1)):
            raise InvalidValueError(
                f'hash="{self.hash}" needs 2**{match.group(1)} sets; '
                f"entries={self.entries} with ways={self.ways} are {self.sets}"
            )

    @property
    def sets(self) -> int:
        """Number of sets."""
        return self.entries // self.ways

    def to_dict(self) -> dict[str, Any]:
        """Give the fields that differ from their defaults, as TOML has them."""
        return _plain(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Cache:
        """Build one from what `to_dict` gives."""
        return cls(**_arguments(cls, data))


@dataclass(frozen=True, slots=True)
class TlbArray:
    """One array of a TLB level.

    Parameters
    ----------
    name : str
        What tables and messages call it.
    level : int
        1 to 7; arrays of one level are looked up together.
    cache : Cache
        Its size.
    pages : sequence of str
        The page sizes it holds, of ``"4K"``, ``"2M"`` and ``"1G"``. They share its sets.
    serves : sequence of str, default all
        The kinds of access that use it, of ``"fetch"``, ``"load"`` and ``"store"``.
    smash : bool, default False
        Hold a page of another size as the largest smaller size of `pages`, a piece of it at a
        time; otherwise such a page is not held.

    Raises
    ------
    InvalidValueError, InvalidTypeError
        For an array that cannot be built.
    """

    name: str
    level: int
    cache: Cache
    pages: tuple[str, ...] = ("4K",)
    serves: tuple[str, ...] = KINDS
    smash: bool = False

    def __post_init__(self) -> None:
        _text(self.name, "name", "text that names the array")
        if not self.name:
            raise InvalidValueError("name must not be empty")
        _instance(self.cache, "cache", Cache)
        _instance(self.smash, "smash", bool)
        _set(
            self,
            level=_integer(self.level, "level", 1, MOST_LEVELS),
            pages=_subset(self.pages, "pages", PAGES),
            serves=_subset(self.serves, "serves", KINDS),
        )

    def to_dict(self) -> dict[str, Any]:
        """Give the fields that differ from their defaults, as TOML has them."""
        return _plain(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TlbArray:
        """Build one from what `to_dict` gives."""
        arguments = _arguments(cls, data)
        arguments["cache"] = _nested(Cache, arguments["cache"], "cache")
        return cls(**arguments)


class _Levels(Mapping[int, Cache]):
    """Caches by level: a mapping that cannot change, so that its owner has a hash."""

    __slots__ = ("_items",)

    def __init__(self, items: Iterable[tuple[int, Cache]]) -> None:
        self._items = tuple(sorted(items, key=operator.itemgetter(0)))

    def __getitem__(self, level: int) -> Cache:
        for key, cache in self._items:
            if key == level:
                return cache
        raise KeyError(level)

    def __iter__(self) -> Iterator[int]:
        return iter([level for level, _ in self._items])

    def __len__(self) -> int:
        return len(self._items)

    def __hash__(self) -> int:
        return hash(self._items)

    def __repr__(self) -> str:
        return repr(dict(self._items))


@dataclass(frozen=True, slots=True)
class WalkCache:
    """What lets a walk skip upper levels of the tables.

    Parameters
    ----------
    kind : {"split", "page-table", "path"}
        ``"split"``: one array for each level, looked up by the address translated.
        ``"page-table"``: one array of entries of all upper levels, looked up by where in memory
        the entry lies. ``"path"``: one array of whole paths through the upper levels.
    caches : mapping of int to Cache, or Cache
        For ``"split"`` the arrays by level of the entries that they hold: 2 for PDEs, 3 PDPTEs,
        4 PML4Es, 5 PML5Es; what a missing level would hold is not cached. For the others the
        one array, which for ``"path"`` must be fully associative.

    Raises
    ------
    InvalidValueError, InvalidTypeError
        For caches that cannot be built.
    """

    kind: Literal["split", "page-table", "path"]
    caches: Mapping[int, Cache] | Cache

    def __post_init__(self) -> None:
        _choice(self.kind, "kind", WALK_CACHES)
        if self.kind == "split":
            _set(self, caches=self._split())
            return
        _instance(self.caches, f'caches of kind="{self.kind}"', Cache)
        if self.kind == "path" and self.cache is not None and self.cache.sets != 1:
            raise InvalidValueError(
                'kind="path" must be fully associative, '
                f"got entries={self.cache.entries} with ways={self.cache.ways}"
            )

    def _split(self) -> _Levels:
        """Check the caches of each level."""
        if not isinstance(self.caches, Mapping):
            raise InvalidTypeError(
                'caches of kind="split" must be a mapping of level to Cache, '
                f"got {self.caches!r:.80}"
            )
        if not self.caches:
            raise InvalidValueError('kind="split" needs a cache of at least one of levels 2 to 5')
        checked = []
        for level, cache in self.caches.items():
            number = _integer(level, "level of a split cache", WALK_LEVELS[0], WALK_LEVELS[-1])
            _instance(cache, f"caches[{number}]", Cache)
            checked.append((number, cache))
        return _Levels(checked)

    @property
    def levels(self) -> Mapping[int, Cache]:
        """The arrays by level; empty unless split."""
        return _Levels(()) if isinstance(self.caches, Cache) else self.caches

    @property
    def cache(self) -> Cache | None:
        """The one array; None where split."""
        return self.caches if isinstance(self.caches, Cache) else None

    def to_dict(self) -> dict[str, Any]:
        """Give the fields as TOML has them; the keys of split caches are text."""
        if isinstance(self.caches, Cache):
            return {"kind": self.kind, "caches": self.caches.to_dict()}
        split = {str(level): cache.to_dict() for level, cache in self.caches.items()}
        return {"kind": self.kind, "caches": split}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> WalkCache:
        """Build one from what `to_dict` gives."""
        arguments = _arguments(cls, data)
        caches = arguments["caches"]
        if arguments["kind"] != "split":
            caches = _nested(Cache, caches, "caches")
        elif isinstance(caches, Mapping):
            caches = {
                _level(key): _nested(Cache, value, f"caches.{key}") for key, value in caches.items()
            }
        return cls(arguments["kind"], caches)


@dataclass(frozen=True, slots=True)
class Geometry:
    """All that one core caches of translations.

    Parameters
    ----------
    name : str
        What tables and messages call it.
    tlbs : sequence of TlbArray
        At most 16, of up to 7 levels that follow one another from 1. Level 1 serves every kind of
        access. Empty: no TLB, every access walks.
    guest : WalkCache, optional
        Of the tables that translate the address of the access.
    guest_points_to : {"host", "guest"}, default "host"
        What an entry of `guest` leads to when translation is nested: the host-physical address
        of the next table, or its guest-physical one, which is translated first.
    host : WalkCache, optional
        Of the nested tables.
    nested_tlb : Cache, optional
        Guest-physical to host-physical pages, of all sizes.
    inclusive : bool, default False
        An entry that leaves a level also leaves the levels before it.

    Raises
    ------
    InvalidValueError, InvalidTypeError
        For caches that cannot be built.

    See Also
    --------
    pyvirt.mmu.presets.load : Geometries of processors.
    """

    name: str
    tlbs: tuple[TlbArray, ...] = ()
    guest: WalkCache | None = None
    guest_points_to: Literal["host", "guest"] = "host"
    host: WalkCache | None = None
    nested_tlb: Cache | None = None
    inclusive: bool = False

    def __post_init__(self) -> None:
        _text(self.name, "name", "text that names the geometry")
        _choice(self.guest_points_to, "guest_points_to", ("host", "guest"))
        _instance(self.inclusive, "inclusive", bool)
        for name, kind in (("guest", WalkCache), ("host", WalkCache), ("nested_tlb", Cache)):
            value = getattr(self, name)
            if value is not None:
                _instance(value, name, kind)
        if isinstance(self.tlbs, str | Mapping) or not isinstance(self.tlbs, Iterable):
            raise InvalidTypeError(f"tlbs must be a sequence of TlbArray, got {self.tlbs!r:.80}")
        _set(self, tlbs=tuple(self.tlbs))
        for array in self.tlbs:
            _instance(array, "an element of tlbs", TlbArray)
        self._check_arrays()

    def _check_arrays(self) -> None:
        """Refuse arrays that do not make up levels."""
        if len(self.tlbs) > MOST_ARRAYS:
            raise InvalidValueError(
                f"tlbs has {len(self.tlbs)} arrays; at most {MOST_ARRAYS} are accepted"
            )
        names = [array.name for array in self.tlbs]
        for name in names:
            if names.count(name) > 1:
                raise InvalidValueError(f"tlbs has more than one array named {name!r}")
        levels = sorted({array.level for array in self.tlbs})
        if levels != list(range(1, len(levels) + 1)):
            raise InvalidValueError(
                f"levels of tlbs must follow one another from 1, got {_list(levels)}"
            )
        first = {kind for array in self.tlbs if array.level == 1 for kind in array.serves}
        unserved = [kind for kind in KINDS if kind not in first]
        if self.tlbs and unserved:
            raise InvalidValueError(f"no array of level 1 in tlbs serves {_list(unserved)}")

    @classmethod
    def none(cls) -> Geometry:
        """Give the geometry of an MMU that caches nothing."""
        return cls("none")

    @property
    def levels(self) -> int:
        """Number of TLB levels."""
        return max((array.level for array in self.tlbs), default=0)

    def to_dict(self) -> dict[str, Any]:
        """Give the fields that differ from their defaults, as TOML has them."""
        return _plain(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Geometry:
        """Build one from what `to_dict` gives.

        Raises
        ------
        InvalidValueError, InvalidTypeError
            For unknown or missing keys, or caches that cannot be built.
        """
        arguments = _arguments(cls, data)
        tlbs = arguments.get("tlbs", ())
        if isinstance(tlbs, list | tuple):
            arguments["tlbs"] = tuple(
                _nested(TlbArray, array, f"tlbs[{i}]") for i, array in enumerate(tlbs)
            )
        for name, kind in (("guest", WalkCache), ("host", WalkCache), ("nested_tlb", Cache)):
            if arguments.get(name) is not None:
                arguments[name] = _nested(kind, arguments[name], name)
        return cls(**arguments)


def _set(target: object, **values: object) -> None:
    """Put the normalised form of fields into a frozen dataclass."""
    for name, value in values.items():
        object.__setattr__(target, name, value)


def _list(values: Iterable[object]) -> str:
    return ", ".join(map(str, values))


def _integer(value: SupportsIndex, name: str, least: int, most: int) -> int:
    accepted = f"{name} must be an integer from {least} to {most}"
    if isinstance(value, bool):
        raise InvalidTypeError(f"{accepted}, got {value!r}")
    try:
        number = operator.index(value)
    except TypeError as error:
        raise InvalidTypeError(f"{accepted}, got {value!r:.80}") from error
    if not least <= number <= most:
        raise InvalidValueError(f"{accepted}, got {number if abs(number) < 1 << 64 else 'more'}")
    return number


def _level(key: object) -> object:
    """Turn a level written as TOML's text back into a number."""
    return int(key) if isinstance(key, str) and key.isascii() and key.isdigit() else key


def _text(value: object, name: str, accepted: str) -> None:
    if not isinstance(value, str):
        raise InvalidTypeError(f"{name} must be {accepted}, got {value!r:.80}")


def _choice(value: object, name: str, accepted: tuple[str, ...]) -> None:
    _text(value, name, f"one of {_list(accepted)}")
    if value not in accepted:
        raise InvalidValueError(f"{name} must be one of {_list(accepted)}, got {value!r:.80}")


def _subset(values: object, name: str, accepted: tuple[str, ...]) -> tuple[str, ...]:
    """Check names, and give them in the order of `accepted`."""
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise InvalidTypeError(
            f"{name} must be a sequence out of {_list(accepted)}, got {values!r:.80}"
        )
    given = tuple(values)
    if not given:
        raise InvalidValueError(f"{name} must name at least one of {_list(accepted)}")
    for value in given:
        _choice(value, f"an element of {name}", accepted)
    if len(set(given)) != len(given):
        raise InvalidValueError(f"{name} names one more than once: {_list(given)}")
    return tuple(value for value in accepted if value in given)


def _instance(value: object, name: str, kind: type) -> None:
    if not isinstance(value, kind):
        article = "True or False" if kind is bool else f"a {kind.__name__}"
        raise InvalidTypeError(f"{name} must be {article}, got {value!r:.80}")


def _arguments(cls: type, data: object) -> dict[str, Any]:
    """Check the keys of a table against the fields of a dataclass."""
    if not isinstance(data, Mapping):
        raise InvalidTypeError(f"{cls.__name__} must be a table of values, got {data!r:.80}")
    known = {entry.name: entry for entry in fields(cls)}
    for key in data:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, 1)
            raise InvalidValueError(
                f"{cls.__name__} has no {key!r:.80}"
                + (f"; did you mean {near[0]!r}?" if near else f"; it has {_list(known)}")
            )
    missing = [n for n, entry in known.items() if entry.default is MISSING and n not in data]
    if missing:
        raise InvalidValueError(f"{cls.__name__} needs {_list(missing)}")
    return dict(data)


def _nested(cls: Any, data: object, where: str) -> Any:
    """Build a part of a table, and name it in what is wrong with it."""
    try:
        return cls.from_dict(data)
    except (InvalidValueError, InvalidTypeError) as error:
        raise type(error)(f"{where}: {error}") from error


def _plain(value: Any) -> dict[str, Any]:
    """Give the fields of a dataclass that differ from their defaults, as TOML has them."""
    result: dict[str, Any] = {}
    for entry in fields(value):
        item = getattr(value, entry.name)
        if entry.default is not MISSING and item == entry.default:
            continue
        if isinstance(item, tuple):
            result[entry.name] = [x.to_dict() if isinstance(x, TlbArray) else x for x in item]
        else:
            result[entry.name] = item.to_dict() if hasattr(item, "to_dict") else item
    return result
