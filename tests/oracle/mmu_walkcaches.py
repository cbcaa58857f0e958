"""Paging-structure caches in plain Python: split by level, by entry, and of whole paths.

All three answer the same questions about one dimension: where a walk of an address can begin
(`start`), what the entry at a host address is (`entry_at`), and what to remember of a walk that
succeeded (`learn`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from oracle.mmu_caches import Context, Line, SlowCache
from oracle.slowwalk import Dim, Rights


@dataclass(frozen=True)
class Pointer:
    """What an entry of a level says of the table below it."""

    table: int
    """Address of the table in the dimension's own physical space."""
    host: int | None
    """The same in host memory, for entries that remember it."""
    rights: Rights
    """What the entries from the root to this one allow together."""


@dataclass(frozen=True)
class Step:
    """One table-pointing entry that a walk used."""

    level: int
    pointer: Pointer
    where: int
    """Host address of the entry."""
    raw: int
    read: bool
    """Whether it came from memory."""


@dataclass(frozen=True)
class Start:
    """Where a walk begins."""

    level: int
    """Level of the entry that was found."""
    pointer: Pointer
    known: dict[int, Pointer]
    """For a path: the pointers of this level and those above it."""


class NoCache:
    """A dimension that caches nothing."""

    def start(self, dim: Dim, address: int, context: Context) -> Start | None:
        return None

    def entry_at(self, where: int, context: Context) -> int | None:
        return None

    def learn(
        self, dim: Dim, address: int, context: Context, steps: list[Step], start: Start | None
    ) -> None:
        pass

    def drop_address(self, dim: Dim, address: int, of: Callable[[Context], bool]) -> None:
        """Drop what a walk of the address would use."""

    def drop(self, of: Callable[[Context], bool]) -> None:
        pass

    def caches(self) -> dict[int, SlowCache]:
        """The arrays by level (0: of all levels)."""
        return {}


class SplitCache(NoCache):
    """One array for each level, looked up by region number."""

    def __init__(self, shapes: Any, seeds: Callable[[], int]) -> None:
        self.arrays = {level: SlowCache(shapes[level], seeds()) for level in sorted(shapes)}

    def start(self, dim: Dim, address: int, context: Context) -> Start | None:
        for level, cache in self.arrays.items():
            if level > dim.levels:
                continue
            place = cache.find(address >> dim.shift(level), level, context)
            if place:
                cache.touch(place)
                pointer = cache.line(place).value
                return Start(level, pointer, {level: pointer})
        return None

    def learn(
        self, dim: Dim, address: int, context: Context, steps: list[Step], start: Start | None
    ) -> None:
        for step in steps:
            if step.read and step.level in self.arrays:
                key = address >> dim.shift(step.level)
                self.arrays[step.level].insert(Line(key, step.level, context, step.pointer))

    def drop_address(self, dim: Dim, address: int, of: Callable[[Context], bool]) -> None:
        for level, cache in self.arrays.items():
            region = address >> dim.shift(level)
            cache.drop(lambda line, region=region: line.key == region and of(line.context))

    def drop(self, of: Callable[[Context], bool]) -> None:
        for cache in self.arrays.values():
            cache.drop(lambda line: of(line.context))

    def caches(self) -> dict[int, SlowCache]:
        return self.arrays


class PageTableCache(NoCache):
    """One array of entries that point to tables, looked up by their host address."""

    def __init__(self, shape: Any, seeds: Callable[[], int]) -> None:
        self.array = SlowCache(shape, seeds())

    def entry_at(self, where: int, context: Context) -> int | None:
        # Two entries of 4 bytes share a key: the rest of the address is part of the tag.
        place = self.array.find(where >> 3, where & 7, context)
        if place is None:
            return None
        self.array.touch(place)
        return self.array.line(place).value

    def learn(
        self, dim: Dim, address: int, context: Context, steps: list[Step], start: Start | None
    ) -> None:
        for step in steps:
            if step.read:
                self.array.insert(Line(step.where >> 3, step.where & 7, context, step.raw))

    def drop_address(self, dim: Dim, address: int, of: Callable[[Context], bool]) -> None:
        # An entry does not say for which addresses it is used.
        self.drop(of)

    def drop(self, of: Callable[[Context], bool]) -> None:
        self.array.drop(lambda line: of(line.context))

    def caches(self) -> dict[int, SlowCache]:
        return {0: self.array}


class PathCache(NoCache):
    """One fully associative array of paths; an entry serves every address with its prefix."""

    def __init__(self, shape: Any, seeds: Callable[[], int]) -> None:
        self.array = SlowCache(shape, seeds())

    @staticmethod
    def shares(dim: Dim, line: Line, address: int, level: int) -> bool:
        """Whether an entry knows the pointer of a level on the way of an address."""
        if level not in line.value:
            return False
        up = dim.shift(level) - dim.shift(line.kind)
        return line.key >> up == address >> dim.shift(level)

    def start(self, dim: Dim, address: int, context: Context) -> Start | None:
        for level in range(2, dim.levels + 1):
            for at, way, line in self.array.valid():
                if line.context == context and self.shares(dim, line, address, level):
                    self.array.touch((at, way))
                    known = {k: v for k, v in line.value.items() if k >= level}
                    return Start(level, line.value[level], known)
        return None

    def learn(
        self, dim: Dim, address: int, context: Context, steps: list[Step], start: Start | None
    ) -> None:
        read = [step for step in steps if step.read]
        if not read:
            return
        known = dict(start.known) if start else {}
        known |= {step.level: step.pointer for step in read}
        deepest = min(known)
        self.array.insert(Line(address >> dim.shift(deepest), deepest, context, known))

    def drop_address(self, dim: Dim, address: int, of: Callable[[Context], bool]) -> None:
        # Whatever shares a prefix with the address would be used for it.
        self.array.drop(
            lambda line: (
                of(line.context)
                and any(self.shares(dim, line, address, level) for level in line.value)
            )
        )

    def drop(self, of: Callable[[Context], bool]) -> None:
        self.array.drop(lambda line: of(line.context))

    def caches(self) -> dict[int, SlowCache]:
        return {0: self.array}


def walk_cache(shape: Any, seeds: Callable[[], int]) -> NoCache:
    """Build what a `pyvirt.mmu.geometry.WalkCache` (or None) describes."""
    if shape is None:
        return NoCache()
    if shape.kind == "split":
        return SplitCache(shape.caches, seeds)
    return (PageTableCache if shape.kind == "page-table" else PathCache)(shape.caches, seeds)
