"""Random address spaces for the property tests, each a function of a string of bytes.

`garbage` fills a few frames with entries that mostly point at these same frames: tables that
are cyclic, that point at themselves or outside RAM, and entries with any reserved bit. `built`
maps pages through one to three dimensions and then damages some words. Both read their choices
from a `Tape`, where zero is the plainest choice, so hypothesis shrinks a case by writing zeros,
and a fuzzer can feed the same functions.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, Phase, given, settings

from oracle.slowwalk import (
    CR0_WP,
    CR4_PKE,
    CR4_PKS,
    CR4_PSE,
    CR4_SMAP,
    CR4_SMEP,
    EFER_NXE,
    FRAME,
    Dim,
    Entry,
    SlowMemory,
    SlowWalk,
    decode,
)

MIB, GIB = 1 << 20, 1 << 30
SHAPES = (
    ("x86-64", 4),
    ("x86-64", 5),
    ("pae", 3),
    ("x86-32", 2),
    ("ept", 4),
    ("ept", 5),
    ("npt", 4),
    ("npt", 5),
)
INNER, OUTER = SHAPES[:4], SHAPES[4:]


class Tape:
    """Choices read from bytes; past the end every choice is the first one."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def byte(self) -> int:
        self.at += 1
        return self.data[self.at - 1] if self.at <= len(self.data) else 0

    def number(self, size: int = 8) -> int:
        return int.from_bytes(bytes(self.byte() for _ in range(size)), "little")

    def below(self, n: int) -> int:
        return self.byte() % n if n <= 256 else self.number(4) % n

    def pick(self, choices):
        return choices[self.below(len(choices))]

    def chance(self, percent: int) -> bool:
        return self.byte() * 100 >= (100 - percent) * 256


@dataclass
class Case:
    """One memory with tables in it, and what to ask of them."""

    memory: SlowMemory
    dims: tuple[Dim, ...]
    addresses: list[int]
    tape: Tape
    pages: list[tuple[int, int, int]] = field(default_factory=list)
    """What `built` mapped in dimension 0 before the damage: va, shift, own address."""

    def walker(self) -> SlowWalk:
        """The oracle over a memory of its own."""
        return SlowWalk(self.memory.copy(), *self.dims)

    def trials(self, count: int) -> list[tuple[int, str, bool]]:
        """Accesses to translate, in order."""
        tape = self.tape
        return [
            (tape.pick(self.addresses), tape.pick("rwx"), tape.chance(50)) for _ in range(count)
        ]

    def __repr__(self) -> str:
        words = ", ".join(
            f"{pa:#x}: {word:#x}" for pa, word in sorted(self.memory.nonzero().items())
        )
        regions = [(hex(start), hex(size)) for start, size in self.memory.regions]
        return f"Case({self.dims}, regions={regions}, words={{{words}}})"


def settings_of(tape: Tape, shape: tuple[str, int], set_ad: bool, root: int = 0) -> Dim:
    """Tables of a shape under random control settings."""
    kind, levels = shape
    widths = (52, 32, 36, 39, 40, 46) if kind == "x86-32" else (52, 48, 46, 40, 36)
    cr4 = sum(bit for bit in (CR4_PSE, CR4_SMEP, CR4_SMAP, CR4_PKE, CR4_PKS) if tape.chance(45))
    return Dim(
        format=kind,
        root=root,
        levels=levels,
        pa_width=tape.pick(widths),
        cr0=0 if tape.chance(30) else CR0_WP,
        cr4=cr4,
        efer=0 if tape.chance(20) else EFER_NXE,
        pkru=tape.number(4) if tape.chance(60) else 0,
        pkrs=tape.number(4) if tape.chance(60) else 0,
        ac=tape.chance(30),
        vendor="amd" if tape.chance(30) else "intel",
        large_1g=not tape.chance(15),
        exec_only=not tape.chance(40),
        ept_ad=tape.chance(50),
        mbec=tape.chance(30),
        set_ad=set_ad,
    )


def shapes_of(tape: Tape, count: int) -> list[tuple[str, int]]:
    """The shapes of one to three dimensions; the first may be of any kind."""
    first = SHAPES if count == 1 or tape.chance(10) else INNER
    return [tape.pick(first), *(tape.pick(OUTER) for _ in range(count - 1))]


# ---------------------------------------------------------------------------------- garbage

_X86 = (0x27, 0x07, 0x67, 0x03, 0x07, 0x05, 0x01, 0x87, 0xE7, 0x83, 0x185, 0x127, 0x06, 0x07, 0x27)
_PDPTE = (0x01, 0x01, 0x01, 0x07)
_EPT = (0x07, 0x407, 0x107, 0x07, 0x03, 0x407, 0x01, 0x05, 0x04, 0x400, 0x02, 0x06, 0x87, 0xB7)
_EPT += (0x387, 0x37, 0x17, 0x3F, 0x30, 0x407, 0x07, 0x07)


def _special_bits(dim: Dim) -> list[int]:
    odd = (63, 51, 52, 58, 59, 60, 61, 62, dim.pa_width - 1, dim.pa_width, 12, 13, 20, 21, 29, 30)
    return [*odd, *range(12)]


def garbage_entry(tape: Tape, dim: Dim, frames: list[int], outside: int, plain: int) -> int:
    """One entry that is mostly present and mostly points at a frame of the case.

    `plain` is 0 for anything, 1 for pointers without odd bits, 2 for leaves that map the
    frames of the case to themselves, as outer dimensions need for a walk to get far.
    """
    if tape.chance(4):
        return 0
    ept = dim.format == "ept"
    if plain == 2 and tape.chance(75):
        base = tape.pick(frames) & ~((GIB if dim.large_1g else 2 * MIB) - 1)
        return base | (0x4B7 if ept else 0x87)
    if plain and tape.chance(85):
        return tape.pick(frames) | (0x407 if ept else 1 if dim.format == "pae" else 7)
    low = tape.pick(_EPT if ept else _X86)
    base = outside if tape.chance(4) else tape.pick(frames)
    if low & 0x80 and not tape.chance(15):
        base &= ~(2 * MIB - 1) if tape.chance(60) else ~(GIB - 1)
    entry = base | low
    if tape.chance(15):
        entry ^= 1 << tape.pick(_special_bits(dim))
    if dim.format == "x86-64" and tape.chance(25):
        entry |= tape.below(16) << 59
    return entry & 0xFFFFFFFF if dim.format == "x86-32" else entry


def _bases(dims: tuple[Dim, ...]) -> list[int]:
    low = [0, 0x40000, 3 * GIB]
    if all(dim.format not in ("pae", "x86-32") for dim in dims):
        low += [1 << 32, (1 << min(dim.pa_width for dim in dims)) - 0x10000]
    return low


def garbage(tape: Tape, count: int) -> Case:
    """Twelve frames of entries that were never meant to be tables."""
    set_ad = tape.chance(40)
    dims = tuple(settings_of(tape, shape, set_ad) for shape in shapes_of(tape, count))
    base = 0 if count > 1 and tape.chance(60) else tape.pick(_bases(dims))
    frames = [base + 0x1000 * i for i in range(12)]
    regions = [(base, 0xC000)]
    if tape.chance(20):  # a hole in the middle of RAM
        regions = [(base, 0x3000), (base + 0x4000, 0x8000)]
    memory = SlowMemory(regions)
    slots = {0, 1, 255, 256, 511}
    for dim in dims:
        for frame in (*frames[::3], frames[-1]):
            slots |= {frame >> dim.shift(level) & 511 for level in range(1, dim.levels + 1)}
    spread = sorted(slots)
    rooted = []
    for i, dim in enumerate(dims):
        # Each dimension fills frames of its own; entries may point at any of them.
        own = frames[i * 12 // count : (i + 1) * 12 // count]
        rooted.append(replace(dim, root=_garbage_root(tape, dim, own)))
        for frame in own:
            plain = 0
            if count > 1 or tape.chance(40):
                plain = 1 if i == 0 or frame == own[0] or frame == rooted[-1].root & FRAME else 2
            targets = own if plain == 1 or tape.chance(50) else frames
            for slot in [*spread, 512, 768, 1023] if dim.width == 4 else spread:
                entry = garbage_entry(tape, dim, targets, base + 0xC000, plain)
                if memory.is_ram(frame):
                    memory.store(frame + slot * dim.width, entry, dim.width)
    indices = [*spread, 512, 768, 1023]
    addresses = [_address(tape, dims[0], indices) for _ in range(20)]
    return Case(memory, tuple(rooted), addresses, tape)


def _garbage_root(tape: Tape, dim: Dim, frames: list[int]) -> int:
    root = tape.pick(frames)
    if dim.format == "pae":
        return root | tape.pick((0, 0x20, 0x7E0, 0xFE0))
    return root | tape.pick((0, 0, 0, 0x18, 0xFFF if dim.format == "x86-64" else 0))


def _address(tape: Tape, dim: Dim, indices: list[int]) -> int:
    """An address whose every index is one that the case uses."""
    if tape.chance(4):
        return tape.number()
    address = tape.number(2) & 0xFFF
    for level in range(1, dim.levels + 1):
        address |= tape.pick(indices) % dim.entries(level) << dim.shift(level)
    address = dim.widen(address)
    return address ^ 1 << tape.below(64) if tape.chance(8) else address


# ------------------------------------------------------------------------------------ built


class Builder:
    """Maps pages through all dimensions of a case, allocating what they need on the way.

    The physical space of dimension d is the space that dimension d + 1 translates; that of
    the last one is RAM. A frame is always allocated together with what backs it further out.
    """

    HOST = ((0, 16 * MIB), (GIB, 16 * MIB))

    def __init__(self, tape: Tape, dims: list[Dim]) -> None:
        self.tape = tape
        self.memory = SlowMemory(list(self.HOST))
        self.dims = dims
        self.taken = [0] * len(dims)
        self.chunks = [0] * len(dims)
        for d in reversed(range(len(dims))):
            dims[d] = replace(dims[d], root=self.new_frame(d))

    def new_frame(self, d: int) -> int:
        """A fresh frame in the physical space of dimension d, backed all the way out."""
        self.taken[d] += 1
        frame = (self.taken[d] * 37 % 509 + 1) << 12  # below 2 MiB, scattered
        if d + 1 < len(self.dims):
            self.cover(d + 1, frame)
        return frame

    def new_chunk(self, d: int, shift: int, start: int = -1) -> int:
        """An aligned address for a large page in the physical space of dimension d.

        Pages that may hold tables (those at 0 and what backs these) get a place of their own;
        others may share one.
        """
        if shift == 30:
            return GIB
        if shift == 21 and start in (0, 4 * MIB):
            return 4 * MIB if start == 0 else 6 * MIB
        self.chunks[d] += 1
        return 8 * MIB + (self.chunks[d] % 2 << shift)

    def cover(self, d: int, address: int) -> None:
        """Have dimension d translate an address (4 KiB, 2 MiB or 1 GiB leaf), and all out of it."""
        target = self.target(d, address)
        if target is None:
            large = self.dims[d].large_1g and self.tape.chance(8)
            shift = 30 if large else 21 if self.tape.chance(25) else 12
            start = address & ~((1 << shift) - 1)
            if self.blocked(d, start, shift):
                shift, start = 12, address & ~0xFFF
            base = self.new_frame(d) if shift == 12 else self.new_chunk(d, shift, start)
            self.map(d, start, base, shift, all_rights=True)
            target = base | address & ((1 << shift) - 1)
        if d + 1 < len(self.dims):
            self.cover(d + 1, target)

    def walk(self, d: int) -> SlowWalk:
        quiet = (replace(dim, set_ad=False, cr0=0, cr4=dim.cr4 & CR4_PSE) for dim in self.dims[d:])
        return SlowWalk(self.memory, *quiet)

    def host(self, d: int, address: int) -> int:
        """Where in RAM an address of dimension d's physical space is."""
        if d + 1 == len(self.dims):
            return address
        result = self.walk(d + 1).translate(address, "w", False)
        assert result.code == 0, "the builder maps tables with all rights"
        return result.pa

    def slot(self, d: int, table: int, address: int, level: int) -> int:
        dim = self.dims[d]
        index = address >> dim.shift(level) & (dim.entries(level) - 1)
        return self.host(d, table + dim.width * index)

    def find(self, d: int, address: int, shift: int) -> tuple[Entry, int, int]:
        """The entry that decides about an address: absent, a leaf, or of the level of `shift`.

        Returns it with its own shift and its place in RAM.
        """
        dim, table = self.dims[d], self.dims[d].table_of_root()
        for level in range(dim.levels, 0, -1):
            where = self.slot(d, table, address, level)
            entry = decode(dim, level, self.memory.load(where, dim.width))
            if not entry.present or entry.leaf or dim.shift(level) <= shift:
                break
            table = entry.base
        return entry, dim.shift(level), where

    def blocked(self, d: int, address: int, shift: int) -> bool:
        """Whether a leaf, or tables of smaller ones, are in the way of a page."""
        return self.find(d, address, shift)[0].present

    def target(self, d: int, address: int) -> int | None:
        """Where dimension d's own tables send an address."""
        entry, shift, _ = self.find(d, address, 12)
        return entry.base | address & ((1 << shift) - 1) if entry.present and entry.leaf else None

    def mapper(self, d: int, address: int) -> tuple[int, int] | None:
        """A leaf on the way of an address out of dimension d: its dimension and place in RAM."""
        while d + 1 < len(self.dims) and self.tape.chance(50):
            target = self.target(d, address)
            if target is None:
                return None
            d, address = d + 1, target
        entry, _, where = self.find(d, address, 12)
        return (d, where) if entry.present and entry.leaf else None

    def restrict(self, d: int, where: int) -> None:
        """Take rights from a leaf of dimension d."""
        drop = (4, 4, 2, 6, 3, 7) if self.dims[d].format == "ept" else (2, 4, 6)
        self.memory.words[where] &= ~self.tape.pick(drop)
        if self.dims[d].format == "npt" and self.tape.chance(50):
            self.memory.words[where] |= 1 << 63

    def map(self, d: int, address: int, target: int, shift: int, all_rights: bool = False) -> None:
        dim, table = self.dims[d], self.dims[d].table_of_root()
        for level in range(dim.levels, 0, -1):
            where = self.slot(d, table, address, level)
            if dim.shift(level) == shift:
                self.memory.store(where, self.leaf(dim, target, shift, all_rights), dim.width)
                return
            entry = decode(dim, level, self.memory.load(where, dim.width))
            if entry.present:
                table = entry.base
                continue
            table = self.new_frame(d)
            pointer = table | self.pointer(dim, level, all_rights)
            self.memory.store(where, pointer, dim.width)

    def pointer(self, dim: Dim, level: int, all_rights: bool) -> int:
        if dim.format == "ept":
            return 0x407
        if dim.format == "pae" and level == 3:
            return 1
        return 7 if all_rights or not self.tape.chance(25) else self.tape.pick((0x27, 5, 3, 0x107))

    def leaf(self, dim: Dim, target: int, shift: int, all_rights: bool) -> int:
        tape = self.tape
        entry = target | (0x80 if shift > 12 else 0)
        if dim.format == "ept":
            if all_rights:
                return entry | 0x437
            rights = tape.pick((0x407, 7, 3, 5, 1, 0x307, 4, 0x400, 0x401))
            return entry | rights | (0x18 if tape.chance(5) else tape.pick((0x30, 0, 8, 0x20)))
        rights = 7 if all_rights else tape.pick((7, 3, 5, 1, 0x67, 0x165))
        if dim.format != "x86-32" and not all_rights and tape.chance(30):
            rights |= 1 << 63 if dim.has_nx else 0
        if dim.is_long and not all_rights:
            rights |= tape.below(16) << 59 if tape.chance(40) else 0
        return entry | rights

    def damage(self, times: int) -> None:
        """Change words that hold entries."""
        tape = self.tape
        words = sorted(self.memory.words)
        for _ in range(times):
            where = tape.pick(words)
            how = tape.below(6)
            value = self.memory.words[where]
            if how == 0:
                value ^= 1 << tape.below(64)
            elif how == 1:
                value ^= 1 << tape.below(12)
            elif how == 5:
                value &= ~tape.pick((2, 2, 3, 4))
            elif how == 2:
                value = self.memory.words[tape.pick(words)]
            elif how == 3:
                value = value & ~FRAME | tape.pick((0, 0x3000, 20 * MIB, where & FRAME))
            else:
                value = 0
            self.memory.words[where] = value


def built(tape: Tape, count: int, damage: bool = True, largest: int = 30) -> Case:
    """Pages mapped through `count` dimensions, most of which translate."""
    set_ad = tape.chance(40)
    dims = [settings_of(tape, shape, set_ad) for shape in shapes_of(tape, count)]
    builder = Builder(tape, dims)
    top = dims[0]
    shifts = [top.shift(level) for level in range(1, top.levels + 1) if top.shift(level) <= largest]
    if top.format == "pae":
        shifts = [12, 21]
    if top.format == "x86-32" and not top.cr4 & CR4_PSE:
        shifts = [12]
    if top.is_long or top.is_ept:
        shifts = [shift for shift in shifts if shift < 30 or top.large_1g]
    pages = []
    region = tape.number() & 0x7F7F_FFFF_FFFF if tape.chance(50) else tape.number()
    for _ in range(4 + tape.below(8)):
        shift = tape.pick([12, *shifts])
        if tape.chance(30):
            region = tape.number()
        address = region + (tape.below(600) << 12)
        address = top.widen(address & ((1 << 12 + 9 * top.levels) - 1) & 0xFFFFFFFFFFFFFFFF)
        if top.format in ("pae", "x86-32"):
            address &= 0xFFFFFFFF
        address &= ~((1 << shift) - 1)
        if builder.blocked(0, address, shift):
            continue
        target = builder.new_frame(0) if shift == 12 else builder.new_chunk(0, shift)
        if shift > 12 and count > 1:
            builder.cover(1, target + (tape.below(1 << shift - 12) << 12))
        builder.map(0, address, target, shift)
        pages.append((address, shift, target))
    if damage and count > 1:
        chosen = [target for _, shift, target in pages if shift == 12 and tape.chance(50)]
        for found in [builder.mapper(1, target) for target in chosen]:
            if found:
                builder.restrict(*found)
    if damage:
        builder.damage(tape.pick((0, 1, 2, 5, 20)))
    addresses = []
    for address, shift, _ in pages:
        for _ in range(3):
            inside = address + tape.number(4) % (1 << shift)
            addresses.append(inside ^ (1 << tape.below(48)) if tape.chance(10) else inside)
    addresses.append(tape.number())
    return Case(builder.memory, tuple(builder.dims), addresses, tape, pages)


# ------------------------------------------------------------------------------- strategies


def cases(count: int, kind: str = "any", size: int = 4096, **options) -> st.SearchStrategy[Case]:
    """Cases of `count` dimensions: ``"garbage"``, ``"built"`` or ``"any"``."""

    def make(data: bytes) -> Case:
        tape = Tape(data)
        if kind == "garbage" or (kind == "any" and tape.chance(40)):
            return garbage(tape, count)
        return built(tape, count, **options)

    return st.binary(min_size=size, max_size=size).map(make)


# Shrinking thousands of bytes takes minutes: only on request. A failing case prints all of it.
_SHRINK = bool(os.environ.get("PYVIRT_SHRINK"))
_COMMON = {
    "deadline": None,
    "database": None,
    "print_blob": False,
    "suppress_health_check": list(HealthCheck),
    "phases": list(Phase) if _SHRINK else [Phase.explicit, Phase.generate],
}


def quick_and_slow(check, strategy, quick: int, thorough: int):
    """The same property as a test of every run and as a long one marked ``slow``."""

    @settings(max_examples=quick, derandomize=True, **_COMMON)
    @given(case=strategy)
    def test(case):
        check(case)

    @pytest.mark.slow
    @settings(max_examples=thorough, **_COMMON)
    @given(case=strategy)
    def test_thoroughly(case):
        check(case)

    test.__doc__ = test_thoroughly.__doc__ = check.__doc__
    return test, test_thoroughly
