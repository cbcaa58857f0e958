"""An MMU in plain Python: TLBs, walk caches, nested paging and invalidation, one step at a time.

It shares nothing with the compiled engine. Rules of entries and rights are those of `slowwalk`;
here stand the caches around them, each rule once, in the order in which an access meets it:
`SlowMMU.access` (look-up), `_walk` (guest dimension), `_host` (nested dimension), `_fill`,
`_faulted`, and the operations that invalidate. Sources: Intel SDM vol. 3 chapters 5.10 and 30.4;
AMD APM vol. 2, 15.16 and 15.25.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import numpy as np

from oracle.mmu_caches import GLOBAL, NONE, SHIFTS, SIZES, Context, Line, SlowCache
from oracle.mmu_walkcaches import Pointer, Start, Step, walk_cache
from oracle.slowwalk import (
    FRAME,
    NON_CANONICAL,
    NOT_PRESENT,
    OUTSIDE_TABLE,
    Dim,
    Fault,
    Rights,
    decode,
    judge,
)

MISCONFIGURED = 3
PGE, PCIDE, SMEP, PAE, PG = 1 << 7, 1 << 17, 1 << 20, 1 << 5, 1 << 31
KINDS = {"x": 0, "r": 1, "w": 2}
SERVES = {"x": "fetch", "r": "load", "w": "store"}
LOG = 512

COUNTERS = {
    "accesses": (3,),
    "tlb_hits": (7, 3),
    "walks": (3,),
    "faults": (16,),
    "dirty_assists": (),
    "rights_rewalks": (),
    "guest_refs": (6,),
    "host_refs": (6,),
    "guest_cache_hits": (6,),
    "host_cache_hits": (6,),
    "nested_tlb_hits": (3,),
    "nested_walks": (),
    "guest_a_set": (),
    "guest_d_set": (),
    "host_a_set": (),
    "host_d_set": (),
    "pml_entries": (),
    "pml_full": (),
    "ept_violations": (),
    "ept_misconfigurations": (),
    "page_faults": (),
    "shootdowns": (),
    "ipis": (),
    "splits": (),
}


class Counters(dict):
    """Named counters; ``add("faults", 3)`` counts one of an array."""

    def __init__(self) -> None:
        super().__init__({name: np.zeros(shape, int) for name, shape in COUNTERS.items()})

    def add(self, name: str, *at: int, by: int = 1) -> None:
        self[name][at] += by


@dataclass(frozen=True)
class Mapping:
    """What one page translates to, as a TLB or the nested TLB remembers it."""

    base: int
    """Host address of the page."""
    size: int
    """0 4K, 1 2M, 2 1G."""
    rights: Rights
    entry: int
    """The leaf of the dimension itself (its protection key counts)."""
    dirty: bool
    is_global: bool = False
    own_shift: int = 12
    """Log2 of the page of the dimension's own tables, which may be larger."""
    host: Mapping | None = None
    """For combined mappings: the nested dimension's part."""

    def piece(self, va: int, size: int) -> Mapping:
        """The part of a smaller size that holds the address."""
        inside = va & ((1 << shift_of(self.size)) - 1) & -(1 << shift_of(size))
        return replace(self, base=self.base + inside, size=size)


@dataclass
class Vcpu:
    """The registers that translation depends on."""

    core: int
    vpid: int
    cr0: int
    cr3: int
    cr4: int
    eptp: int

    @property
    def pcid(self) -> int:
        return self.cr3 & 0xFFF if self.cr4 & PCIDE else 0

    @property
    def ep4ta(self) -> int:
        return NONE if self.eptp == NONE else self.eptp & FRAME


class Core:
    """The caches of one core, as far as the mode uses them."""

    def __init__(self, geometry: Any, mode: str, seeds: Callable[[], int]) -> None:
        self.tlbs = [SlowCache(array.cache, seeds()) for array in geometry.tlbs]
        self.guest = walk_cache(None if mode == "tlb-only" else geometry.guest, seeds)
        self.host = walk_cache(geometry.host if mode == "nested" else None, seeds)
        nested = geometry.nested_tlb if mode == "nested" else None
        self.nested = SlowCache(nested, seeds()) if nested else None
        self.turn: dict[int, int] = {}
        self.counters = Counters()


class Memory:
    """The interface of `SlowMemory` over a `PhysMem`."""

    def __init__(self, mem: Any) -> None:
        self.mem = mem

    def is_ram(self, pa: int) -> bool:
        return self.mem.is_ram(pa)

    def load(self, pa: int, width: int = 8) -> int:
        return self.mem.read_u64(pa) if width == 8 else self.mem.read_u32(pa)

    def store(self, pa: int, value: int, width: int = 8) -> None:
        (self.mem.write_u64 if width == 8 else self.mem.write_u32)(pa, value)


@dataclass
class Reads:
    """References of the access that runs."""

    count: int = 0


def shift_of(size: int) -> int:
    return SHIFTS[SIZES[size]]


def size_of(shift: int) -> int:
    """The size as which a page is cached: 4 MiB pages as 2 MiB."""
    return 2 if shift >= 30 else 1 if shift >= 21 else 0


class SlowMMU:
    """The model; keywords as of ``pv.MMU``, and three of its own.

    Parameters
    ----------
    mode, memory, **options
        As of ``pv.MMU``. `memory` is copied, unless `tables` come with it.
    marking_counts : bool
        Whether walks of the nested dimension on behalf of guest A and D bits count as references
        of the access; they are made in either case.
    whole_pages : bool
        Whether an address condemns all cached pieces of the guest's page that holds it.
    """

    def __init__(
        self,
        mode: str = "native",
        memory: Any = None,
        *,
        cr3: int = 0,
        nested_root: int = 0,
        nested_format: str = "ept",
        guest_format: str = "x86-64",
        guest_levels: int | None = None,
        nested_levels: int = 4,
        pa_width: int = 52,
        cr0: int = 0x80010033,
        cr4: int = 0xB0,
        efer: int = 0xD00,
        pkru: int = 0,
        pkrs: int = 0,
        ac: bool = False,
        vendor: str = "intel",
        large_1g: bool = True,
        exec_only: bool = True,
        mbec: bool = False,
        tlb: Any = "reference",
        vcpus: int = 1,
        vpids: bool = True,
        set_ad: bool = True,
        ept_ad: bool = False,
        pml: bool = False,
        precision: str = "exact",
        tables: Any = None,
        rng: Any = None,
        marking_counts: bool = False,
        whole_pages: bool = True,
        **ignored: Any,
    ) -> None:
        if isinstance(tlb, str):
            from pyvirt.mmu import presets

            tlb = presets.load(tlb)
        self.geometry, self.mode = tlb, mode
        self.nested, self.identity = mode == "nested", mode == "tlb-only"
        self.conservative = precision == "conservative"
        self.pml, self.set_ad, self.ept_ad = pml, set_ad, ept_ad
        self.marking_counts, self.whole_pages = marking_counts, whole_pages
        if memory is not None and tables is None:
            memory = memory.copy()
        self.memory = Memory(memory)
        self.tables = tables
        shared = {
            "pa_width": pa_width,
            "large_1g": large_1g,
            "set_ad": set_ad,
            "exec_only": exec_only,
            "ept_ad": ept_ad,
            "mbec": mbec,
        }
        levels = guest_levels or {"pae": 3, "x86-32": 2}.get(guest_format, 4)
        if self.identity:
            levels, set_ad = 5, False
        registers = {"cr0": cr0, "cr4": cr4, "efer": efer, "pkru": pkru, "pkrs": pkrs, "ac": ac}
        self.guest_dim = Dim(guest_format, 0, levels, vendor=vendor, **registers, **shared)
        self.host_dim = Dim(
            nested_format, 0, nested_levels, cr0=0x80010033, cr4=0xB0, efer=0xD00, **shared
        )
        generator = np.random.default_rng(0 if rng is None else rng)

        def seeds() -> int:
            # Any state but 0 would do; odd ones are used.
            return int(generator.integers(1, 1 << 64, dtype=np.uint64)) | 1

        self.cores = [Core(self.geometry, mode, seeds) for _ in range(vcpus)]
        eptp = nested_root if self.nested else NONE
        self.vcpus = [
            Vcpu(i, i + 1 if self.nested and vpids else 0, cr0, cr3, cr4, eptp)
            for i in range(vcpus)
        ]
        self.logs: list[list[int]] = [[] for _ in range(vcpus)]
        self.reads = Reads()

    # ------------------------------------------------------------------ one access (2.2)

    def access(self, va: int, access: str, user: bool, vcpu: int = 0) -> tuple[int, int]:
        """Translate one address: host address and code."""
        v = self.vcpus[vcpu]
        core = self.cores[v.core]
        core.counters.add("accesses", KINDS[access])
        guest = self._guest_dim(v)
        if not guest.translates(va):
            core.counters.add("faults", NON_CANONICAL)
            return 0, NON_CANONICAL
        again = False
        hit = self._look_up(core, v, va, access)
        if hit:
            index, place = hit
            level = self.geometry.tlbs[index].level
            mapping = core.tlbs[index].line(place).value
            allowed = self.identity or not self._denied(v, mapping, access, user)
            if allowed and (access != "w" or mapping.dirty):
                core.tlbs[index].touch(place)
                core.counters.add("tlb_hits", level - 1, mapping.size)
                is_global = core.tlbs[index].line(place).context.is_global
                self._fill(core, v, va, access, mapping, level - 1, is_global)
                inside = va & ((1 << shift_of(mapping.size)) - 1)
                pa = va if self.identity else mapping.base + inside
                return pa, level << 4 | mapping.size << 13
            core.counters.add("dirty_assists" if allowed else "rights_rewalks")
            again = True
        self.reads = Reads()
        try:
            mapping, pa = self._walk(core, v, vcpu, va, access, user)
        except Fault as fault:
            self._faulted(core, v, va, fault)
            return 0, fault.code
        if self.identity:
            pa = va
        core.counters.add("walks", mapping.size)
        self._fill(core, v, va, access, mapping, self.geometry.levels, mapping.is_global)
        return pa, min(self.reads.count, 63) << 7 | mapping.size << 13 | again << 15

    def _guest_dim(self, v: Vcpu) -> Dim:
        return replace(self.guest_dim, root=v.cr3, cr0=v.cr0, cr4=v.cr4)

    def _contexts(self, v: Vcpu) -> tuple[Context, Context]:
        """The tag of the vCPU's own entries, and that of its global ones."""
        return Context(v.vpid, v.pcid, v.ep4ta), Context(v.vpid, GLOBAL, v.ep4ta)

    def _look_up(self, core: Core, v: Vcpu, va: int, access: str) -> Any:
        contexts = self._contexts(v)
        for level in range(1, self.geometry.levels + 1):
            for index, array in enumerate(self.geometry.tlbs):
                if array.level != level or SERVES[access] not in array.serves:
                    continue
                for size, name in enumerate(SIZES):
                    if name in array.pages:
                        place = core.tlbs[index].find(va >> SHIFTS[name], size, *contexts)
                        if place:
                            return index, place
        return None

    def _denied(self, v: Vcpu, mapping: Mapping, access: str, user: bool) -> bool:
        """Whether what an entry says is not enough for the access."""
        if judge(self._guest_dim(v), mapping.entry, mapping.rights, access, user):
            return True
        host = mapping.host
        return host is not None and bool(
            judge(self.host_dim, host.entry, host.rights, access, mapping.rights.user)
        )

    # ---------------------------------------------------------------------- filling (2.4)

    def _fill(
        self, core: Core, v: Vcpu, va: int, access: str, mapping: Mapping, top: int, glob: bool
    ) -> None:
        """Put a mapping into the levels from `top` down to 1."""
        own, shared = self._contexts(v)
        context = shared if glob else own
        for level in range(top, 0, -1):
            candidates = []
            for index, array in enumerate(self.geometry.tlbs):
                if array.level == level and SERVES[access] in array.serves:
                    size = self._size_in(array, mapping.size)
                    if size is not None:
                        candidates.append((index, size))
            if not candidates:
                continue
            index, size = self._choose(core, level, va, candidates, (own, shared))
            line = Line(va >> shift_of(size), size, context, mapping.piece(va, size))
            driven = core.tlbs[index].insert(line, own, shared)
            if driven and self.geometry.inclusive:
                self._exclude(core, level, driven)

    @staticmethod
    def _size_in(array: Any, size: int) -> int | None:
        """As what an array holds a page of a size."""
        if SIZES[size] in array.pages:
            return size
        smaller = [s for s in range(size) if SIZES[s] in array.pages]
        return max(smaller) if array.smash and smaller else None

    @staticmethod
    def _choose(
        core: Core,
        level: int,
        va: int,
        candidates: list[tuple[int, int]],
        contexts: tuple[Context, Context],
    ) -> tuple[int, int]:
        if len(candidates) == 1:
            return candidates[0]
        for index, size in candidates:
            if core.tlbs[index].find(va >> shift_of(size), size, *contexts):
                return index, size
        for index, size in candidates:
            if core.tlbs[index].has_room(va >> shift_of(size)):
                return index, size
        turn = core.turn.get(level, 0)
        core.turn[level] = turn + 1
        return candidates[turn % len(candidates)]

    def _exclude(self, core: Core, level: int, driven: Line) -> None:
        """What left a level may not stay in the levels before it."""

        def condemned(line: Line) -> bool:
            inside = driven.first <= line.first and line.last <= driven.last
            return line.context == driven.context and inside

        for index, array in enumerate(self.geometry.tlbs):
            if array.level < level:
                core.tlbs[index].drop(condemned)

    # ----------------------------------------------------------------------- walking (2.3)

    def _walk(
        self, core: Core, v: Vcpu, number: int, va: int, access: str, user: bool
    ) -> tuple[Mapping, int]:
        """Walk the guest's tables, through the nested ones where there are any."""
        if self.identity:
            return Mapping(va & ~0xFFF, 0, Rights(), 0, True), va
        dim = self._guest_dim(v)
        context = self._contexts(v)[0]

        def locate(where: int, level: int, update: bool) -> int:
            if not self.nested:
                return where
            return self._host_table(core, v, number, where, level, update)

        own = self._dimension(
            core, v, number, 0, dim, core.guest, context, va, access, user, (), locate
        )
        leaf, shift, rights, entry, dirty, learn = own
        host = None
        pa = leaf | va & ((1 << shift) - 1)
        if self.nested:
            host, pa = self._host(core, v, number, pa, access, rights.user, (0,))
        learn()
        size = size_of(shift) if host is None else min(size_of(shift), host.size)
        is_global = bool(entry & 1 << 8) and bool(v.cr4 & PGE)
        base = pa & -(1 << shift_of(size))
        dirty = dirty and (host is None or host.dirty)
        return Mapping(base, size, rights, entry, dirty, is_global, shift, host), pa

    def _host_table(
        self, core: Core, v: Vcpu, number: int, gpa: int, level: int, update: bool
    ) -> int:
        """Where a guest's table entry is in host memory."""
        if update or self.host_dim.format == "npt":
            access = "w"
        else:
            access = "rw" if self.host_dim.ept_ad else "r"
        return self._host(core, v, number, gpa, access, False, (level,))[1]

    def _host(
        self,
        core: Core,
        v: Vcpu,
        number: int,
        gpa: int,
        access: str,
        user: bool,
        inside: tuple[int, ...],
    ) -> tuple[Mapping, int]:
        """Translate a guest-physical address."""
        context = Context(0, 0, v.ep4ta)
        dim = replace(self.host_dim, root=v.eptp)
        if core.nested and dim.translates(gpa):
            for size in range(3):
                place = core.nested.find(gpa >> shift_of(size), size, context)
                if not place:
                    continue
                found = core.nested.line(place).value
                fault = judge(dim, found.entry, found.rights, access, user)
                if not fault and ("w" not in access or found.dirty):
                    core.nested.touch(place)
                    core.counters.add("nested_tlb_hits", size)
                    return found, found.base + (gpa & ((1 << shift_of(size)) - 1))
                break
        core.counters.add("nested_walks")
        try:
            leaf, shift, rights, entry, dirty, learn = self._dimension(
                core, v, number, 1, dim, core.host, context, gpa, access, user, inside, None
            )
        except Fault as fault:
            fault.gpa = gpa  # type: ignore[attr-defined]
            raise
        learn()
        size = size_of(shift)
        found = Mapping(leaf, size, rights, entry, dirty, False, shift)
        if core.nested:
            core.nested.insert(Line(gpa >> shift_of(size), size, context, found))
        return found, leaf | gpa & ((1 << shift) - 1)

    def _dimension(
        self,
        core: Core,
        v: Vcpu,
        number: int,
        d: int,
        dim: Dim,
        caches: Any,
        context: Context,
        address: int,
        access: str,
        user: bool,
        inside: tuple[int, ...],
        locate: Callable[[int, int, bool], int] | None,
    ) -> tuple[int, int, Rights, int, bool, Callable[[], None]]:
        """Walk one set of tables: page, its shift, rights, leaf, D, and how to learn from it."""
        counters, side = core.counters, ("guest", "host")[d]
        if d and not dim.translates(address):
            raise Fault(d, dim.levels, NON_CANONICAL, inside, 0)
        start: Start | None = caches.start(dim, address, context)
        top, table, rights, table_host = dim.levels, dim.table_of_root(), Rights(), None
        if start:
            counters.add(f"{side}_cache_hits", start.level)
            top, table, rights = start.level - 1, start.pointer.table, start.pointer.rights
            if d == 0 and self.geometry.guest_points_to == "host":
                table_host = start.pointer.host
        used: list[tuple[int, int, int, bool]] = []
        passed: list[tuple[int, int, Rights, int, int, bool]] = []
        host_of: dict[int, int] = {}
        for level in range(top, 0, -1):
            offset = dim.width * (address >> dim.shift(level) & (dim.entries(level) - 1))
            if table_host is not None:
                place, table_host = table_host + offset, None
            else:
                place = locate(table + offset, level, False) if locate else table + offset
            host_of[level] = place - offset
            raw = caches.entry_at(place, context) if level > 1 else None
            read = raw is None
            if raw is None:
                if not self.memory.is_ram(place):
                    raise Fault(d, level, OUTSIDE_TABLE, inside, 0)
                raw = self.memory.load(place, dim.width)
                counters.add(f"{side}_refs", level)
                self.reads.count += 1
            else:
                counters.add(f"{side}_cache_hits", level)
            entry = decode(dim, level, raw)
            if not entry.present or entry.wrong:
                raise Fault(d, level, entry.wrong or NOT_PRESENT, inside, 0)
            rights = rights.narrowed(entry)
            if read:
                used.append((table + offset, level, raw, entry.leaf))
            if entry.leaf:
                break
            # What a page-table cache holds of an entry that this walk read has its A bit set.
            kept = raw | dim.accessed_bits(level, False, False) if read else raw
            passed.append((level, entry.base, rights, place, kept, read))
            table = entry.base
        fault = judge(dim, raw, rights, access, user)
        if fault:
            raise Fault(d, level, fault, inside, 0)
        self._mark(core, number, d, dim, used, address, access, inside, locate)
        d_bit = 1 << 9 if dim.is_ept else 1 << 6
        after = raw | dim.accessed_bits(level, True, "w" in access)
        tracked = dim.set_ad and (not dim.is_ept or dim.ept_ad)
        dirty = not tracked or bool(after & d_bit)

        def learn() -> None:
            steps = [
                Step(at, Pointer(base, host_of.get(at - 1), allowed), where, value, read)
                for at, base, allowed, where, value, read in passed
            ]
            caches.learn(dim, address, context, steps, start)

        return entry.base, dim.shift(level), rights, after, dirty, learn

    def _mark(
        self,
        core: Core,
        number: int,
        d: int,
        dim: Dim,
        used: list[tuple[int, int, int, bool]],
        address: int,
        access: str,
        inside: tuple[int, ...],
        locate: Callable[[int, int, bool], int] | None,
    ) -> None:
        """Set A in every entry that was read, and D in the leaf for a store."""
        side = ("guest", "host")[d]
        for where, level, raw, leaf in used:
            wanted = dim.accessed_bits(level, leaf, "w" in access) & ~raw
            if not wanted:
                continue
            place = where
            if locate:
                before, refs = self.reads.count, core.counters["host_refs"].copy()
                place = locate(where, level, True)
                if not self.marking_counts:
                    self.reads.count, core.counters["host_refs"] = before, refs
            if not self.memory.is_ram(place):
                raise Fault(d, level, OUTSIDE_TABLE, inside, 0)
            value = self.memory.load(place, dim.width)
            self.memory.store(place, value | wanted, dim.width)
            a_bit, d_bit = (1 << 8, 1 << 9) if dim.is_ept else (1 << 5, 1 << 6)
            core.counters.add(f"{side}_a_set", by=int(bool(wanted & a_bit)))
            core.counters.add(f"{side}_d_set", by=int(bool(wanted & d_bit)))
            if dim.is_ept and self.pml and wanted & d_bit:
                self._log(core, number, address & ~0xFFF)

    def _log(self, core: Core, number: int, gpa: int) -> None:
        """Enter a page into the vCPU's page-modification log."""
        log = self.logs[number]
        if len(log) == LOG:
            core.counters.add("pml_full")
            log.clear()
        log.append(gpa)
        core.counters.add("pml_entries")

    # ------------------------------------------------------------------------ faults (2.5)

    def _faulted(self, core: Core, v: Vcpu, va: int, fault: Fault) -> None:
        kind, dimension = fault.code & 15, fault.code >> 7 & 3
        core.counters.add("faults", kind)
        guest = self._guest_dim(v)
        context, shared = self._contexts(v)
        self._drop_tlb(core, va, lambda c: c in (context, shared))
        core.guest.drop_address(guest, va, lambda c: c == context)
        if dimension == 0:
            core.counters.add("page_faults")
            return
        misconfigured = kind == MISCONFIGURED
        core.counters.add("ept_misconfigurations" if misconfigured else "ept_violations")
        gpa = fault.gpa  # type: ignore[attr-defined]
        if core.nested:
            core.nested.drop(
                lambda line: (
                    line.context.ep4ta == v.ep4ta and gpa >> shift_of(line.kind) == line.key
                )
            )
        core.host.drop_address(self.host_dim, gpa, lambda c: c.ep4ta == v.ep4ta)

    # ------------------------------------------------------------------ invalidation (2.6)

    def _drop_tlb(self, core: Core, va: int | None, of: Callable[[Context], bool]) -> None:
        """Drop TLB entries of some contexts; of one address, or of all."""

        def condemned(line: Line) -> bool:
            if not of(line.context):
                return False
            if va is None:
                return True
            shift = shift_of(line.kind)
            if self.whole_pages:
                shift = max(shift, line.value.own_shift)
            return line.key << shift_of(line.kind) >> shift == va >> shift

        for cache in core.tlbs:
            cache.drop(condemned)

    def _flush(self, core: Core, of: Callable[[Context], bool], keep_global: bool = False) -> None:
        """Drop TLB and walk-cache entries of some contexts."""
        self._drop_tlb(core, None, lambda c: of(c) and not (keep_global and c.is_global))
        core.guest.drop(of)

    def _at(self, vcpu: int) -> tuple[Vcpu, Core]:
        v = self.vcpus[vcpu]
        return v, self.cores[v.core]

    def invlpg(self, va: int, vcpu: int = 0, shootdown: bool = False) -> None:
        v, core = self._at(vcpu)
        vpid, pcid = v.vpid, v.pcid
        self._drop_tlb(core, va, lambda c: c.vpid == vpid and c.pcid in (pcid, GLOBAL))
        core.guest.drop(lambda c: c.vpid == vpid and (self.conservative or c.pcid == pcid))
        if shootdown:
            core.counters.add("shootdowns")
            core.counters.add("ipis", by=len(self.vcpus) - 1)
            for other in range(len(self.vcpus)):
                if other != vcpu:
                    self.invlpg(va, other)

    def mov_cr3(self, value: int, vcpu: int = 0) -> None:
        v, core = self._at(vcpu)
        keep = bool(value >> 63) and bool(v.cr4 & PCIDE)
        v.cr3 = value & ~(1 << 63)
        if keep and not self.conservative:
            return
        vpid, pcid = v.vpid, v.pcid
        self._flush(
            core,
            lambda c: c.vpid == vpid and (self.conservative or c.pcid == pcid),
            keep_global=True,
        )

    def mov_cr4(self, value: int, vcpu: int = 0) -> None:
        v, core = self._at(vcpu)
        old, pcid, vpid = v.cr4, v.pcid, v.vpid
        v.cr4 = value
        changed = old ^ value
        if changed & PGE or (old & PCIDE and not value & PCIDE):
            self._flush(core, lambda c: c.vpid == vpid)
        elif changed & PAE or (changed & SMEP and value & SMEP):
            self._flush(core, lambda c: c.vpid == vpid and c.pcid in (pcid, GLOBAL))

    def mov_cr0(self, value: int, vcpu: int = 0) -> None:
        v, core = self._at(vcpu)
        old, v.cr0 = v.cr0, value
        if old & PG and not value & PG:
            self._flush(core, lambda c: c.vpid == v.vpid)

    def invpcid(self, type: int, pcid: int = 0, va: int = 0, vcpu: int = 0) -> None:
        v, core = self._at(vcpu)
        vpid = v.vpid
        if self.conservative:
            type = {0: 1, 1: 3, 2: 2, 3: 2}[type]
        if type == 0:
            self._drop_tlb(core, va, lambda c: c.vpid == vpid and c.pcid == pcid)
            core.guest.drop_address(
                self._guest_dim(v), va, lambda c: c.vpid == vpid and c.pcid == pcid
            )
        elif type == 1:
            self._flush(core, lambda c: c.vpid == vpid and c.pcid == pcid)
        else:
            self._flush(core, lambda c: c.vpid == vpid, keep_global=type == 3)

    def invvpid(self, type: int, vpid: int = 0, va: int = 0, vcpu: int = 0) -> None:
        v, core = self._at(vcpu)
        if self.conservative:
            if type == 1:
                self._flush(core, lambda c: True)
                return
            type = {0: 1, 2: 2, 3: 1}[type]
        if type == 0:
            self._drop_tlb(core, va, lambda c: c.vpid == vpid)
            core.guest.drop_address(self._guest_dim(v), va, lambda c: c.vpid == vpid)
        elif type == 2:
            self._flush(core, lambda c: c.vpid != 0)
        else:
            self._flush(core, lambda c: c.vpid == vpid, keep_global=type == 3)

    def invept(self, type: int, eptp: int = 0, vcpu: int = 0) -> None:
        _, core = self._at(vcpu)
        ep4ta = eptp & FRAME
        everything = self.conservative or type == 2
        self._drop_ep4ta(core, lambda e: e != NONE and (everything or e == ep4ta))

    @staticmethod
    def _drop_host(core: Core, of: Callable[[int], bool]) -> None:
        if core.nested:
            core.nested.drop(lambda line: of(line.context.ep4ta))
        core.host.drop(lambda c: of(c.ep4ta))

    def _drop_ep4ta(self, core: Core, of: Callable[[int], bool]) -> None:
        self._drop_host(core, of)
        self._flush(core, lambda c: of(c.ep4ta))

    def invlpga(self, va: int, asid: int, vcpu: int = 0) -> None:
        v, core = self._at(vcpu)
        if self.conservative:
            self._flush(core, lambda c: c.vpid == asid)
            return
        self._drop_tlb(core, va, lambda c: c.vpid == asid)
        core.guest.drop_address(self._guest_dim(v), va, lambda c: c.vpid == asid)

    def tlb_control(self, n: int, vcpu: int = 0) -> None:
        v, core = self._at(vcpu)
        if self.conservative and n in (3, 7):
            n = 1
        if n == 1:
            self._flush(core, lambda c: True)
            self._drop_host(core, lambda e: True)
        elif n == 3:
            self._flush(core, lambda c: c.vpid == v.vpid)
            self._drop_host(core, lambda e: e == v.ep4ta)
        elif n == 7:
            self._flush(core, lambda c: c.vpid == v.vpid, keep_global=True)

    def vm_entry(self, vcpu: int = 0) -> None:
        v, core = self._at(vcpu)
        if v.vpid == 0:
            self._flush(core, lambda c: c.vpid == 0)

    vm_exit = vm_entry

    def vcpu_switch(self, core: int, vcpu: int = 0) -> None:
        self.vcpus[vcpu].core = core

    def vm_switch(self, vpid: int, cr3: int, root: int, vcpu: int = 0) -> None:
        v = self.vcpus[vcpu]
        v.vpid, v.cr3 = vpid, cr3
        if self.nested:
            v.eptp = root

    # ------------------------------------------------------------------------- interface

    def translate(
        self,
        vas: Iterable[int],
        access: str = "r",
        user: bool = False,
        *,
        vcpu: int = 0,
        on_fault: str = "mark",
    ) -> SimpleNamespace:
        """Translate addresses in order."""
        rows: list[tuple[int, int]] = []
        stopped = False
        for va in vas:
            rows.append((0, 15) if stopped else self.access(int(va), access, user, vcpu))
            stopped = on_fault == "stop" and bool(rows[-1][1] & 15)
        pas, codes = zip(*rows, strict=True) if rows else ((), ())
        return SimpleNamespace(pa=np.array(pas, np.uint64), code=np.array(codes, np.uint16))

    def translate_one(
        self, va: int, access: str = "r", user: bool = False, vcpu: int = 0
    ) -> SimpleNamespace:
        pa, code = self.access(va, access, user, vcpu)
        return SimpleNamespace(pa=pa, code=code)

    def run(self, events: Any) -> list[tuple[int, int]]:
        """Do what a recording says; (address, code) of every translation."""
        results: list[tuple[int, int]] = []
        for event in events:
            results += self._event(*(int(event[name]) for name in event.dtype.names))
        return results

    def _event(
        self, op: int, size: int, vcpu: int, arg: int, addr: int, value: int
    ) -> list[tuple[int, int]]:
        if 1 <= op <= 4:
            access = {1: "r", 2: "w", 3: "x", 4: "w"}[op]
            rows = [self.access(addr, access, bool(arg & 1), vcpu)]
            if (addr & 0xFFF) + size > 4096:
                _, core = self._at(vcpu)
                core.counters.add("splits")
                after = (addr | 0xFFF) + 1 & (1 << 64) - 1
                rows.append(self.access(after, access, bool(arg & 1), vcpu))
            return rows
        simple = {
            0: lambda: None,
            16: lambda: self.mov_cr3(value, vcpu),
            17: lambda: self.mov_cr0(value, vcpu),
            18: lambda: self.mov_cr4(value, vcpu),
            19: lambda: self.invlpg(addr, vcpu, arg == 1),
            20: lambda: self.invpcid(arg, value, addr, vcpu),
            21: lambda: self.invvpid(arg, value, addr, vcpu),
            22: lambda: self.invept(arg, value, vcpu),
            23: lambda: self.invlpga(addr, value, vcpu),
            24: lambda: self.tlb_control(arg, vcpu),
            25: lambda: self.vm_entry(vcpu),
            26: lambda: self.vm_exit(vcpu),
            32: lambda: self._store_table(vcpu, addr, value, size),
            33: lambda: self._map(addr, value, size, arg),
            34: lambda: self.tables.unmap(addr, value),
            35: lambda: self.tables.protect(addr, value, letters(arg)),
            40: lambda: self.vcpu_switch(arg, vcpu),
            41: lambda: self.vm_switch(arg, addr, value, vcpu),
        }
        simple[op]()
        return []

    def _store_table(self, vcpu: int, where: int, value: int, width: int) -> None:
        """The vCPU's operating system writes an entry; no cache of ours takes notice."""
        if self.nested:
            from oracle.slowwalk import SlowWalk

            dim = replace(self.host_dim, root=self.vcpus[vcpu].eptp, set_ad=False)
            result = SlowWalk(self.memory, dim).translate(where, "r")  # type: ignore[arg-type]
            assert result.code == 0, hex(where)
            where = result.pa
        self.memory.store(where, value, width)

    def _map(self, va: int, pa: int, shift: int, arg: int) -> None:
        attrs = 1 << 8 if arg & 16 else 0
        self.tables.map(
            [va], [pa], page_shift=shift, rights=letters(arg), attrs=attrs, overwrite=True
        )

    @property
    def counters(self) -> list[Counters]:
        return [core.counters for core in self.cores]

    def stats(self) -> dict[str, Any]:
        """The counters of all cores together."""
        return {name: sum(core.counters[name] for core in self.cores) for name in COUNTERS}

    def entries(self, core: int = 0) -> set[tuple[Any, ...]]:
        """(structure, set, way, key, kind, vpid, pcid, global, ep4ta, value) of valid entries.

        `kind` is the size of a page and the level of a table entry; `value` the host address of
        a page or the table that an entry points to (page-table caches: the entry itself).
        """
        found = []
        where = self.cores[core]
        for array, cache in zip(self.geometry.tlbs, where.tlbs, strict=True):
            found += [(array.name, *row(*at), at[2].value.base) for at in cache.valid()]
        for name, caches in (("guest", where.guest), ("host", where.host)):
            for level, cache in caches.caches().items():
                found += [
                    (f"{name}-{level}" if level else name, *row(*at), self._points_to(name, at[2]))
                    for at in cache.valid()
                ]
        if where.nested:
            found += [("nested-tlb", *row(*at), at[2].value.base) for at in where.nested.valid()]
        return set(found)

    def _points_to(self, side: str, line: Line) -> int:
        value = line.value
        if isinstance(value, int):
            return value
        if isinstance(value, dict):
            value = value[line.kind]
        combined = side == "guest" and self.nested and self.geometry.guest_points_to == "host"
        return value.host if combined else value.table

    def __deepcopy__(self, memo: Any) -> SlowMMU:
        other = copy.copy(self)
        memo[id(self)] = other
        for name in ("cores", "vcpus", "logs"):
            setattr(other, name, copy.deepcopy(getattr(self, name), memo))
        if self.memory.mem is not None:
            other.memory = Memory(self.memory.mem.copy())
        return other


def row(at: int, way: int, line: Line) -> tuple[Any, ...]:
    c = line.context
    # Of an entry in a page-table cache it is the place in the word, which nobody asks for.
    kind = 0 if isinstance(line.value, int) else line.kind
    return (at, way, line.key, kind, c.vpid, c.pcid, c.is_global, c.ep4ta)


def letters(arg: int) -> str:
    """The rights of a MAP or PROTECT event as the table builder names them."""
    return "".join(letter for bit, letter in ((1, "r"), (2, "w"), (4, "x"), (8, "u")) if arg & bit)
