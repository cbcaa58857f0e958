"""Arrays of an MMU in plain Python: sets, ways, and which way of a full set makes place.

Written from the definitions of the policies, with no thought for speed. Every policy is an
object of one set that is told of touches and fills, and asked for a victim.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

GLOBAL, NONE = -1, -1
MASK = (1 << 64) - 1
SHIFTS = {"4K": 12, "2M": 21, "1G": 30}
SIZES = tuple(SHIFTS)


class Context(NamedTuple):
    """Whose translations an entry belongs to."""

    vpid: int = 0
    pcid: int = 0
    """GLOBAL for entries that every PCID may use."""
    ep4ta: int = NONE

    @property
    def is_global(self) -> bool:
        return self.pcid == GLOBAL


@dataclass
class Line:
    """One valid entry."""

    key: int
    """Page number, region number or address of an entry >> 3: what the hash takes."""
    kind: int
    """Size of the page (0 4K, 1 2M, 2 1G) or level of the entry."""
    context: Context
    value: Any

    @property
    def first(self) -> int:
        """First address of the page of a TLB entry."""
        return self.key << SHIFTS[SIZES[self.kind]]

    @property
    def last(self) -> int:
        return self.first + (1 << SHIFTS[SIZES[self.kind]]) - 1


class Lru:
    """Of all ways, the one that was touched or filled longest ago."""

    def __init__(self, ways: int, draw: Callable[[], int]) -> None:
        self.order = list(range(ways))

    def touch(self, way: int) -> None:
        self.order.remove(way)
        self.order.append(way)

    def fill(self, way: int) -> None:
        self.touch(way)

    def victim(self) -> int:
        return self.order[0]


class Fifo(Lru):
    """The oldest fill; neither use nor a refill in place makes an entry younger."""

    def touch(self, way: int) -> None:
        pass

    def fill(self, way: int) -> None:
        super().touch(way)


class TreePlru:
    """A tree of bits, each of which says in which half the next victim is (0 = the lower)."""

    def __init__(self, ways: int, draw: Callable[[], int]) -> None:
        self.ways = ways
        self.bits = [0] * ways

    def touch(self, way: int) -> None:
        node, low, size = 0, 0, self.ways
        while size > 1:
            size //= 2
            upper = way >= low + size
            self.bits[node] = 0 if upper else 1
            low += size if upper else 0
            node = 2 * node + (2 if upper else 1)

    fill = touch

    def victim(self) -> int:
        node, low, size = 0, 0, self.ways
        while size > 1:
            size //= 2
            upper = self.bits[node]
            low += size if upper else 0
            node = 2 * node + (2 if upper else 1)
        return low


class BitPlru:
    """A bit for each way, set by use; the last clear bit that is set clears all others."""

    def __init__(self, ways: int, draw: Callable[[], int]) -> None:
        self.used = [False] * ways

    def touch(self, way: int) -> None:
        self.used[way] = True
        if all(self.used):
            self.used = [other == way for other in range(len(self.used))]

    fill = touch

    def victim(self) -> int:
        return self.used.index(False) if False in self.used else 0


class Random:
    """A number from the array's own generator, drawn only when a victim is needed."""

    def __init__(self, ways: int, draw: Callable[[], int]) -> None:
        self.ways, self.draw = ways, draw

    def touch(self, way: int) -> None:
        pass

    fill = touch

    def victim(self) -> int:
        return self.draw() % self.ways


POLICIES = {
    "lru": Lru,
    "fifo": Fifo,
    "tree-plru": TreePlru,
    "bit-plru": BitPlru,
    "random": Random,
}


class SlowCache:
    """A set-associative array.

    Parameters
    ----------
    shape : pyvirt.mmu.geometry.Cache
        Entries, ways, policy and hash.
    seed : int
        State of the generator of victims, not 0.
    """

    def __init__(self, shape: Any, seed: int = 1) -> None:
        self.ways = shape.ways
        self.count = shape.entries // shape.ways
        self.fold = int(shape.hash[4:]) if shape.hash.startswith("xor-") else 0
        self.state = seed
        self.lines: list[list[Line | None]] = [[None] * self.ways for _ in range(self.count)]
        make = POLICIES[shape.policy]
        self.policies: list[Any] = [make(self.ways, self.draw) for _ in range(self.count)]

    def draw(self) -> int:
        """The upper half of the next output of xorshift64*."""
        x = self.state
        x ^= x >> 12
        x ^= x << 25 & MASK
        x ^= x >> 27
        self.state = x
        return (x * 0x2545F4914F6CDD1D & MASK) >> 32

    def index(self, key: int) -> int:
        """The set of a key."""
        return (key ^ key >> self.fold) & (self.count - 1) if self.fold else key % self.count

    def find(self, key: int, kind: int, *contexts: Context) -> tuple[int, int] | None:
        """Set and way of the first entry with this key and kind and one of the contexts."""
        at = self.index(key)
        for way, line in enumerate(self.lines[at]):
            if line and line.key == key and line.kind == kind and line.context in contexts:
                return at, way
        return None

    def line(self, place: tuple[int, int]) -> Line:
        found = self.lines[place[0]][place[1]]
        assert found is not None
        return found

    def touch(self, place: tuple[int, int]) -> None:
        self.policies[place[0]].touch(place[1])

    def has_room(self, key: int) -> bool:
        return None in self.lines[self.index(key)]

    def insert(self, line: Line, *contexts: Context) -> Line | None:
        """Put an entry in the place of its predecessor, else where there is room.

        Returns the valid entry of another page that it drove out, if any.
        """
        place = self.find(line.key, line.kind, *(contexts or (line.context,)))
        if place:
            self.lines[place[0]][place[1]] = line
            self.touch(place)
            return None
        at = self.index(line.key)
        lines, policy = self.lines[at], self.policies[at]
        way = lines.index(None) if None in lines else policy.victim()
        driven, lines[way] = lines[way], line
        policy.fill(way)
        return driven

    def drop(self, condemned: Callable[[Line], bool]) -> int:
        """Invalidate entries; what the policy remembers of their ways stays."""
        dropped = 0
        for lines in self.lines:
            for way, line in enumerate(lines):
                if line and condemned(line):
                    lines[way] = None
                    dropped += 1
        return dropped

    def valid(self) -> Iterator[tuple[int, int, Line]]:
        """Set, way and content of each valid entry."""
        for at, lines in enumerate(self.lines):
            for way, line in enumerate(lines):
                if line:
                    yield at, way, line
