"""The MMU: any caches over any tables, and lists of accesses and of what a system does.

All that can be done in more than one way is done so by a twin, a deep copy: one by one or in a
batch, cut anywhere, with vectors or without, as events or by methods. Results, counters, caches
and memories must stay equal. As long as no table has changed since the caches were empty, each
translation must be the one of a walker without caches.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Hashable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

from core.compare import fast_memory, words_of
from core.strategies import OUTER, Case, Tape, built, garbage
from mmu_sim.engine import (
    INVEPT,
    INVLPG,
    INVLPGA,
    INVPCID,
    INVVPID,
    MAP,
    MOV_CR0,
    MOV_CR3,
    MOV_CR4,
    PROTECT,
    STORE_TABLE,
    TLB_CONTROL,
    UNMAP,
    VCPU_SWITCH,
    VM_ENTRY,
    VM_EXIT,
    VM_SWITCH,
)
from mmu_sim.machines import cache, geometry
from pyvirt import MMU, AddressSpace, PageTables, PyvirtError
from pyvirt._core.dtypes import EVENT_DTYPE, RECORD_DTYPE
from pyvirt._core.stream import use_vectors
from pyvirt._core.walker import Walker
from pyvirt.errors import Fault, InvalidValueError, PageFaultError
from pyvirt.mmu.accesses import Accesses
from pyvirt.mmu.geometry import Cache, Geometry, TlbArray, WalkCache

TRACE = False
PCIDE, PGE, PSE, PG = 1 << 17, 1 << 7, 1 << 4, 1 << 31
CR4_BITS = (PGE, PCIDE, 1 << 20, 1 << 21, 1 << 22, 1 << 24, 1 << 5, PSE)
SHARED = ("pa_width", "cr0", "cr4", "efer", "pkru", "pkrs", "ac", "vendor", "large_1g")
SHARED += ("exec_only", "mbec")
ACCESS_OPS = (1, 2, 3, 4)
OTHER_OPS = (0, MOV_CR3, MOV_CR0, MOV_CR4, INVLPG, INVPCID, INVVPID, INVEPT, INVLPGA, TLB_CONTROL)
OTHER_OPS += (VM_ENTRY, VM_EXIT, STORE_TABLE, VCPU_SWITCH, VM_SWITCH, MAP, UNMAP, PROTECT)
KINDS = {1: "r", 2: "w", 3: "x", 4: "w"}
PLAIN = Geometry(
    "plain",
    (TlbArray("L1", 1, Cache(8, 4)), TlbArray("L2", 2, Cache(24, 12), ("4K", "2M"))),
    WalkCache("split", {level: Cache(4, 4) for level in (2, 3, 4, 5)}),
    "host",
    WalkCache("split", {level: Cache(4, 4) for level in (2, 3, 4, 5)}),
    Cache(16, 16),
)
WIDE = Geometry(
    "wide",
    (TlbArray("L1", 1, Cache(16, 4)), TlbArray("L2", 2, Cache(64, 16), smash=True)),
    WalkCache("split", {level: Cache(32 >> level) for level in (2, 3, 4, 5)}),
)


def one_input(data: bytes) -> set[Hashable]:
    """Make an MMU of the bytes and do what they say with it."""
    tape = Tape(data)
    how = tape.below(8)
    try:
        shape = PLAIN if how == 1 else WIDE if how == 2 else geometry(tape)
    except InvalidValueError as error:
        if "at most 16" not in str(error):
            raise
        return {"too many arrays"}
    flags, mode = tape.number(4), tape.pick(("native", "nested", "native", "nested", "tlb-only"))
    plan = [(tape.byte(), tape.number(3)) for _ in range(2 + tape.below(10))]
    case = _case(tape, mode)
    try:
        run = Run(case, shape, mode, flags, tape)
    except InvalidValueError as error:
        if "bits beyond the physical width" not in str(error):
            raise
        return {"root too wide"}
    try:
        for number, seed in plan:
            run.step(number, seed)
    finally:
        use_vectors(None)
    return run.labels | {mode, case.dims[0].format, shape.levels, shape.inclusive}


def _case(tape: Tape, mode: str) -> Case:
    """Tables of the bytes themselves or of random ones with a seed, so that few bytes do."""
    how, count = tape.below(8), 2 if mode == "nested" else 1
    seed = tape.number(2)
    source = Tape(np.random.default_rng(seed).bytes(8192)) if how & 1 else tape
    case = built(source, count, damage=how >= 4) if how < 5 else garbage(source, count)
    if how == 7:
        words = np.random.default_rng(seed).integers(0, 1 << 64, 512, np.uint64, endpoint=False)
        start = case.memory.regions[-1][0]
        case.memory.words.update({start + 8 * i: word for i, word in enumerate(words.tolist())})
    first = case.dims[0]
    if (first.format, first.levels) in OUTER:
        case.dims = (replace(first, format="x86-64"), *case.dims[1:])
    return case


class Run:
    """An MMU under way, and what is known of it."""

    def __init__(self, case: Case, shape: Geometry, mode: str, flags: int, tape: Tape) -> None:
        first, last = case.dims[0], case.dims[-1]
        self.case, self.mode, self.tape = case, mode, tape
        self.labels: set[Hashable] = set()
        self.options: dict[str, Any] = {name: getattr(first, name) for name in SHARED}
        self.options["cr0"] |= 0 if flags & 15 == 15 else PG | 1
        self.options["cr4"] |= sum(bit for i, bit in enumerate((PGE, PCIDE)) if flags >> 4 + i & 1)
        self.nested = mode == "nested"
        self.ept_ad = self.nested and last.format == "ept" and last.ept_ad
        memory = fast_memory(case.memory)
        self.ring = np.zeros(7, RECORD_DTYPE) if flags >> 6 & 3 == 3 else None
        self.format = {"guest_format": first.format, "guest_levels": first.levels}
        if self.nested:
            self.format |= {"nested_format": last.format, "nested_levels": last.levels}
        tables = None
        if flags >> 8 & 3 == 3 and mode != "tlb-only":
            tables = self.builder(memory)
        self.mmu = MMU(
            mode,
            None if mode == "tlb-only" else memory,
            cr3=first.root,
            nested_root=last.root if self.nested else 0,
            tlb=shape,
            vcpus=1 + (flags >> 10 & 3) % 3,
            cores=(None, 1, 2, 3)[flags >> 12 & 3],
            vpids=bool(flags >> 14 & 1),
            set_ad=first.set_ad,
            ept_ad=self.ept_ad,
            pml=bool(self.ept_ad and first.set_ad and flags >> 15 & 1),
            precision=("exact", "conservative")[flags >> 16 & 1],
            prefetch=("auto", True, False, True)[flags >> 17 & 3],
            tables=tables,
            rng=flags >> 19 & 3,
            data_cache=[cache(tape) for _ in range((flags >> 21 & 3) * (flags >> 23 & 1))],
            records=self.ring,
            **self.format,
            **self.options,
        )
        self.stale = False
        self.roots: dict[tuple[int, int, int], set[tuple[int, int]]] = {}

    def builder(self, memory: Any) -> PageTables:
        """What MAP and its like edit: the tables of the case, with few frames to grow."""
        first, last = self.case.dims[0], self.case.dims[-1]
        outer = None
        if self.nested:
            options = {**self.options, "ept_ad": self.ept_ad}
            outer = Walker(memory, last.root, format=last.format, levels=last.levels, **options)
        start = self.case.memory.regions[0][0]
        names = ("pa_width", "cr4", "efer", "vendor", "large_1g", "exec_only", "mbec")
        return PageTables(
            memory,
            format=first.format,
            levels=first.levels,
            frames=(start + 0x8000, 0x4000),
            outer=outer,
            root=first.root & ~0xFFF if first.format != "pae" else first.root,
            **{name: self.options[name] for name in names},
        )

    # --- what is done ---

    def step(self, number: int, seed: int) -> None:
        """Do one of the things that can be done, all of its choices being drawn from a seed."""
        actions = (self.batch, self.batch, self.batch, self.events, self.events, self.operation)
        actions += (self.flush, self.batch, self.again, self.twins, self.poke, self.strange)
        action = actions[number % len(actions)]
        self.labels.add(action.__name__)
        draw = np.random.default_rng(seed)
        before = self.marks()
        action(draw)
        # an entry may serve as another kind of entry elsewhere, where A and D mean something else
        self.stale = self.stale or self.marks() != before
        self.check()

    def marks(self) -> tuple[int, ...]:
        names = ("guest_a_set", "guest_d_set", "host_a_set", "host_d_set")
        return tuple(int(self.mmu.counters[name].sum()) for name in names)

    def addresses(self, draw: np.random.Generator, count: int) -> np.ndarray:
        """Some pages over and over, few others in between."""
        known = np.array(self.case.addresses, np.uint64)
        chosen = known[draw.integers(0, len(known), 1 + draw.integers(12))]
        vas = chosen[draw.integers(0, len(chosen), count)]
        if count > 1000 and draw.random() < 0.7:
            vas = np.sort(vas)  # long runs of hits, and a miss here and there
        if draw.random() < 0.4:
            vas ^= draw.integers(0, 1 << int(draw.choice((3, 12, 14, 22))), count, np.uint64)
        if draw.random() < 0.1:
            vas[draw.integers(0, count)] = draw.integers(0, 1 << 64, 1, np.uint64, endpoint=False)[
                0
            ]
        return vas

    def batch(self, draw: np.random.Generator) -> None:
        """A batch, as a twin has it, as its codes count, and as a walker without caches has it."""
        mmu, count = self.mmu, int(draw.choice((1, 5, 30, 60, 200, 2500)))
        vas, vcpu = self.addresses(draw, count), int(draw.integers(mmu.vcpus))
        access, user = str(draw.choice(list("rwx"))), bool(draw.random() < 0.4)
        if draw.random() < 0.5 and access != "x":
            user = False
        twin = copy.deepcopy(mmu) if draw.random() < 0.7 else None
        walker = self.walker(vcpu)
        before, marks, written = mmu.stats(), self.marks(), mmu.records_written
        use_vectors(bool(draw.random() < 0.7))
        out = Accesses(np.full(count, 7, np.uint64), np.full(count, 7, np.uint16))
        mmu.translate(vas, access, user, vcpu=vcpu, out=out)
        self.counted(before, out, access)
        if self.ring is not None:
            names = ("guest_refs", "host_refs")
            made = sum(int((mmu.stats()[name] - before[name]).sum()) for name in names)
            assert mmu.records_written - written == made
        self.labels |= {("code", code) for code in np.unique(out.code & np.uint16(0xE07F)).tolist()}
        if twin is not None:
            self.by_twin(draw, twin, vas, access, user, vcpu, out)
            same(mmu, twin, self.ring is None)
        if walker is not None and self.marks() == marks:
            self.labels.add("walker")
            self.by_walker(walker, vas, access, user, vcpu, out)

    def by_twin(
        self,
        draw: np.random.Generator,
        twin: Any,
        vas: np.ndarray,
        access: str,
        user: bool,
        vcpu: int,
        out: Accesses,
    ) -> None:
        """The same accesses in another way."""
        use_vectors(bool(draw.random() < 0.5))
        pa, code = np.zeros(len(vas), np.uint64), np.zeros(len(vas), np.uint16)
        how = draw.integers(5)
        if how == 0:
            for i, va in enumerate(vas.tolist()):
                one = twin.translate(va, access, user, vcpu=vcpu)
                pa[i], code[i] = one.pa, one.code
        elif how == 1:
            cuts = [0, *sorted(draw.integers(0, len(vas) + 1, 3).tolist()), len(vas)]
            for lo, hi in pairwise(cuts):
                part = twin.translate(vas[lo:hi], access, user, vcpu=vcpu)
                pa[lo:hi], code[lo:hi] = part.pa, part.code
        elif how == 2 and vcpu == 0 and not user:
            call = {"r": twin.load, "w": twin.store, "x": twin.fetch}[access]
            for i, va in enumerate(vas.tolist()):
                try:
                    pa[i] = call(va)
                    code[i] = out.code[i]
                except PageFaultError as error:
                    code[i] = error.code if error.va == va else 0
        elif how == 3:
            rows = np.zeros(len(vas), EVENT_DTYPE)
            rows["op"], rows["vcpu"] = {"r": 1, "w": 2, "x": 3}[access], vcpu
            rows["arg"], rows["addr"] = user, vas
            part = Accesses(pa, code)
            assert twin.run(rows, out=part) == len(vas)
        else:
            done = 0
            while done < len(vas):  # from fault to fault
                part = twin.translate(vas[done:], access, user, vcpu=vcpu, on_fault="stop")
                (bad,) = np.nonzero(part.code & np.uint16(15))
                made = int(bad[0]) + 1 if len(bad) else len(part)
                assert (part.code[made:] == Fault.SKIPPED).all()
                pa[done : done + made], code[done : done + made] = part.pa[:made], part.code[:made]
                done += made
        assert np.array_equal(pa, out.pa), (how, pa, out.pa)
        assert np.array_equal(code, out.code), (how, code, out.code)

    def walker(self, vcpu: int) -> tuple[AddressSpace | None, dict[str, int]] | None:
        """The tables of a vCPU as they are now, if everything that is cached came from them."""
        mmu = self.mmu
        now = mmu.registers(vcpu)
        self.used(vcpu)
        if self.mode == "tlb-only":
            return None
        if self.stale or len(self.roots[now["core"], now["vpid"], now["ep4ta"]]) > 1:
            return None
        memory, first, last = mmu.mem.copy(), self.case.dims[0], self.case.dims[-1]
        ad = {"set_ad": first.set_ad, "ept_ad": self.ept_ad}
        outer = None
        if self.nested:
            outer = AddressSpace(
                memory,
                now["ep4ta"],
                format=last.format,
                levels=last.levels,
                **ad,
                **self.options,
            )
        if not now["cr0"] & PG:
            return outer, now
        own = {**self.options, "cr0": now["cr0"], "cr4": now["cr4"]}
        form = {"format": first.format, "levels": first.levels}
        return AddressSpace(memory, now["cr3"], outer=outer, **form, **ad, **own), now

    def by_walker(
        self,
        walker: tuple[AddressSpace | None, dict[str, int]],
        vas: np.ndarray,
        access: str,
        user: bool,
        vcpu: int,
        out: Accesses,
    ) -> None:
        """No cache makes a difference."""
        space, now = walker
        wide = vas >> np.uint64(32) != 0
        if space is None:
            pa, code = vas.copy(), np.zeros(len(vas), np.uint16)
        else:
            found = space.translate(vas, access, user)
            pa, code = np.where(found.code, 0, found.pa), found.code.copy()
        own = np.where(out.ok, 0, out.code)
        if not now["cr0"] & PG:
            pa[wide], code[wide] = 0, Fault.NON_CANONICAL
            own, code = own & 15, code & np.uint16(15)
        wrong = (own != code) | (out.pa != pa)
        if wrong.any():
            i = int(wrong.argmax())
            raise AssertionError(
                f"{access} of {int(vas[i]):#x}, user={user}: {out.pa[i]:#x} code {own[i]:#x}, "
                f"by a walker {pa[i]:#x} code {code[i]:#x}"
            )

    def used(self, vcpu: int) -> None:
        """Note which tables fill the caches under which tag."""
        now = self.mmu.registers(vcpu)
        key = now["core"], now["vpid"], now["ep4ta"]
        root = now["cr3"] & ~0xFFF if self.case.dims[0].format != "pae" else now["cr3"]
        self.roots.setdefault(key, set()).add((root, now["cr4"] & PSE))

    def event(self, draw: np.random.Generator, other: float) -> tuple[int, ...]:
        """One event; few fields make no sense."""
        mmu = self.mmu
        vcpu = int(draw.integers(mmu.vcpus))
        va = int(self.addresses(draw, 1)[0])
        roots = [self.case.dims[0].root, self.case.dims[-1].root, 0x1000, 1 << 51 | 0x2000]
        if draw.random() >= other:
            size = int(draw.choice((0, 1, 8, 64, 255)))
            return int(draw.choice(ACCESS_OPS)), size, vcpu, int(draw.integers(2)), va, 0
        op, size, arg, addr, value = int(draw.choice(OTHER_OPS)), 0, int(draw.integers(4)), va, 0
        if op == MOV_CR3:
            value = int(draw.choice((roots[0], roots[0], roots[2])))
            value |= int(draw.integers(3)) | (1 << 63 if draw.random() < 0.3 else 0)
        elif op == MOV_CR0:
            value = mmu.registers(vcpu)["cr0"] ^ (PG if draw.random() < 0.3 else 1 << 16)
        elif op == MOV_CR4:
            value = mmu.registers(vcpu)["cr4"] ^ int(draw.choice(CR4_BITS))
        elif op in (INVPCID, INVVPID, INVLPGA, INVEPT):
            value = int(draw.integers(4)) if op != INVEPT else roots[1]
        elif op == STORE_TABLE:
            words = [0, *self.case.memory.words]
            addr = words[draw.integers(len(words))] + int(draw.choice((0, 0, 4)))
            value = self.case.memory.words.get(words[draw.integers(len(words))], 0)
            value ^= 1 << int(draw.integers(64)) if draw.random() < 0.5 else 0
            size = int(draw.choice((0, 8, 4)))
        elif op == VM_SWITCH:
            addr, value = roots[draw.integers(3)], roots[draw.integers(1, 3)]
        elif op in (MAP, UNMAP, PROTECT):
            addr, size, arg = va & ~0xFFF, int(draw.choice((12, 21))), int(draw.integers(32))
            value = int(draw.choice((0x1000, 0x5000, 0x200000)))
        if draw.random() < 0.02:
            value, arg = int(draw.choice(roots)) << 8 & (1 << 64) - 1, int(draw.integers(1 << 17))
        return op, size, vcpu, arg, addr, value

    def events(self, draw: np.random.Generator) -> None:
        """Events in one array, and one by one, in chunks or by the methods that carry them out."""
        mmu, count = self.mmu, 1 + int(draw.integers(40))
        other = float(draw.choice((0, 0.1, 0.4)))
        rows = np.array([self.event(draw, other) for _ in range(count)], EVENT_DTYPE)
        if draw.random() < 0.1:
            rows["vcpu"][draw.integers(count)] = draw.integers(6)
            rows["op"][draw.integers(count)] = draw.integers(256)
        twin = copy.deepcopy(mmu)
        if not np.isin(rows["op"], (*ACCESS_OPS, 0)).all():
            self.stale = True
        for vcpu in range(mmu.vcpus):
            self.used(vcpu)
        out = Accesses(np.full(count, 7, np.uint64), np.full(count, 7, np.uint16))
        done, error = attempt(lambda: mmu.run(rows, out=out))
        use_vectors(bool(draw.random() < 0.5))
        how = draw.integers(3)
        if how == 0:
            found, other_error = attempt(
                lambda: twin.run(rows[i : i + 3] for i in range(0, count, 3))
            )
            assert (found is None, other_error is None) == (done is None, error is None)
        elif how == 1:
            for i in range(count):
                one = Accesses.empty(1)
                made, other_error = attempt(lambda i=i, one=one: twin.run(rows[i : i + 1], out=one))
                if made is None:
                    break
                assert (one.pa[0], one.code[0]) == (out.pa[i], out.code[i]), rows[i]
            assert (other_error is None) == (error is None)
        else:
            for i, row in enumerate(rows.tolist()):
                made, other_error = attempt(lambda row=row: by_method(twin, row))
                if made is None and other_error is not None:
                    break
                assert made == (out.pa[i], out.code[i]), rows[i]
            assert (other_error is None) == (error is None), (error, other_error)
        if error is not None:
            self.labels.add(("event", type(error).__name__, str(error)[-20:]))
        same(mmu, twin, self.ring is None)

    def operation(self, draw: np.random.Generator) -> None:
        """One thing that the system does, by its method."""
        row = self.event(draw, 1.0)
        if row[0] in (STORE_TABLE, MAP, UNMAP, PROTECT):
            self.stale = True
        _, error = attempt(lambda: by_method(self.mmu, row))
        if error is not None:
            self.labels.add(("operation", row[0], type(error).__name__))

    def flush(self, draw: np.random.Generator) -> None:
        """Everything that drops everything leaves nothing."""
        mmu = self.mmu
        home = mmu.registers(0)["core"]
        for core in range(mmu.cores):
            mmu.vcpu_switch(core)
            mmu.invvpid(2)
            mmu.invvpid(1, 0)
            mmu.invept(2)
            assert not len(mmu.entries(core))
        mmu.vcpu_switch(home)
        self.stale = False
        self.roots = {}
        if draw.random() < 0.1:
            mmu.reset()

    def again(self, draw: np.random.Generator) -> None:
        """Back to a snapshot: as if nothing had happened, but to memory."""
        mmu = self.mmu
        snapshot, before = mmu.snapshot(), state_of(mmu)
        if draw.random() < 0.5:
            snapshot = pickle.loads(pickle.dumps(snapshot))
        self.batch(draw)
        vas = self.addresses(draw, 20)
        results = []
        for _ in range(2):
            mmu.restore(snapshot)
            assert state_of(mmu) == before
            results.append(mmu.translate(vas, "r"))
        # the first round may set A, and so see another memory than the second
        if not self.case.dims[0].set_ad:
            assert np.array_equal(results[0].pa, results[1].pa)
            assert np.array_equal(results[0].code, results[1].code)
        for vcpu in range(mmu.vcpus):
            self.used(vcpu)

    def twins(self, draw: np.random.Generator) -> None:
        """Go on with a copy or a pickle; the memory and the tables follow."""
        mmu, how = self.mmu, draw.integers(3)
        if how == 0:
            twin = pickle.loads(pickle.dumps(mmu))
        elif how == 1:
            twin = copy.deepcopy(mmu)
        else:
            twin = copy.copy(mmu)
            assert twin.mem is mmu.mem
        assert twin.tables is None or twin.tables.mem is twin.mem
        same(mmu, twin)
        self.mmu, self.ring = twin, None

    def poke(self, draw: np.random.Generator) -> None:
        """A write to memory from outside, of which no cache hears."""
        words = list(self.case.memory.words)
        if self.mode == "tlb-only" or not words:
            return
        where = words[draw.integers(len(words))]
        value = self.case.memory.words[words[draw.integers(len(words))]]
        self.mmu.mem.write_u64(where, value ^ (1 << int(draw.integers(64))))
        self.stale = True

    def strange(self, draw: np.random.Generator) -> None:
        """Events of any bytes: they run, or the first that cannot be is named."""
        rows = draw.integers(0, 256, 24 * 12, np.uint8).view(EVENT_DTYPE)
        rows["vcpu"] %= 4
        rows["op"] %= 48
        rows["arg"] &= np.uint32(0x1FFFF)
        self.stale = True
        for first in range(len(rows)):
            _, error = attempt(lambda first=first: self.mmu.run(rows[first:]))
            if error is None:
                break
            assert str(error).startswith("event "), error

    # --- what must hold ---

    def counted(self, before: Any, out: Accesses, access: str) -> None:
        """Counters say what the codes of a batch say."""
        after = self.mmu.stats()
        grown = {name: after[name].astype(np.int64) - before[name] for name in after.dtype.names}
        assert grown["accesses"]["xrw".index(access)] == len(out) == grown["accesses"].sum()
        size = out.code >> np.uint16(13) & np.uint16(3)
        for level in range(1, 5):
            for s in range(3):
                hits = (out.ok & (out.hit_level == level) & (size == s)).sum()
                assert grown["tlb_hits"][level - 1, s] == hits
        for s in range(3):
            assert grown["walks"][s] == (out.walked & (size == s)).sum()
        faults = np.bincount(out.fault[~out.ok], minlength=16)
        assert (grown["faults"] == faults).all()
        references = grown["guest_refs"].sum() + grown["host_refs"].sum()
        if out.ok.all():
            assert references == out.references.sum()
        else:
            assert references >= out.references.sum()
        assert (out.pa[~out.ok] == 0).all()
        assert not out.code[out.hit_level > 0].__and__(np.uint16(0x9F80)).any()

    def check(self) -> None:
        """Sums of counters, and entries that can be."""
        mmu, c = self.mmu, self.mmu.stats()
        assert c["accesses"].sum() == c["tlb_hits"].sum() + c["walks"].sum() + c["faults"].sum()
        host = c["ept_violations"] + c["ept_misconfigurations"]
        assert c["page_faults"] + host <= c["faults"].sum()
        missing = c["faults"].sum() - c["page_faults"] - host
        assert missing <= c["faults"][Fault.NON_CANONICAL]
        assert c["dirty_assists"] + c["rights_rewalks"] <= c["walks"].sum() + c["faults"].sum()
        assert c["splits"] <= c["accesses"].sum()
        if self.mode == "nested" and self.mmu._arguments()[10]:
            assert c["pml_entries"] == c["host_d_set"]
        if self.mmu._arguments()[14]:
            references = c["guest_refs"].sum() + c["host_refs"].sum()
            assert c["data_cache_hits"].sum() == references
        for core in range(mmu.cores):
            well_formed(mmu, core, self.case.dims[0].format)


def attempt(call: Callable[[], Any]) -> tuple[Any, PyvirtError | None]:
    """The result of a call, or its exception."""
    try:
        return call(), None
    except PyvirtError as error:
        return None, error


def by_method(mmu: Any, row: tuple[int, ...]) -> tuple[int, int]:
    """Carry out one event without `run`; its (pa, code)."""
    op, size, vcpu, arg, addr, value = row
    if vcpu >= mmu.vcpus:
        raise InvalidValueError("no such vCPU")
    if op in KINDS:
        one = mmu.translate_one(addr, KINDS[op], bool(arg & 1), vcpu)
        if (addr & 0xFFF) + size > 0x1000:
            after = (addr | 0xFFF) + 1 & (1 << 64) - 1
            other = mmu.translate_one(after, KINDS[op], bool(arg & 1), vcpu)
            mmu.counters.base["splits"][mmu.registers(vcpu)["core"]] += 1
            if one.ok and not other.ok:
                return 0, other.code
        return one.pa, one.code
    calls: dict[int, Callable[[], object]] = {
        MOV_CR3: lambda: mmu.mov_cr3(value, vcpu),
        MOV_CR0: lambda: mmu.mov_cr0(value, vcpu),
        MOV_CR4: lambda: mmu.mov_cr4(value, vcpu),
        INVLPG: lambda: mmu.invlpg(addr, vcpu, shoot_down=arg & 1),
        INVPCID: lambda: mmu.invpcid(arg, value & 0xFFF, addr, vcpu),
        INVVPID: lambda: mmu.invvpid(arg, value & 0xFFFF, addr, vcpu),
        INVEPT: lambda: mmu.invept(arg, value, vcpu),
        INVLPGA: lambda: mmu.invlpga(addr, value & 0xFFFF, vcpu),
        TLB_CONTROL: lambda: mmu.tlb_control(arg, vcpu),
        VM_ENTRY: lambda: mmu.vm_entry(vcpu),
        VM_EXIT: lambda: mmu.vm_exit(vcpu),
        VCPU_SWITCH: lambda: mmu.vcpu_switch(arg, vcpu),
        VM_SWITCH: lambda: mmu.vm_switch(arg, addr, value, vcpu),
        0: lambda: None,
    }
    # those without a method; and what is no operation
    calls.get(op, lambda: mmu.run(np.array([row], EVENT_DTYPE)))()
    return 0, 0


def state_of(mmu: Any) -> tuple:
    """All that changes, in a form that can be compared."""
    # a copy has forgotten where in the host tables lie, which differs and means nothing
    arena, _, contexts, counters, accesses, _, _, options = copy.copy(mmu)._state()
    vcpus = [(mmu.registers(i), mmu.pml_log(i).tolist()) for i in range(mmu.vcpus)]
    return arena, vcpus, contexts, counters.tobytes(), accesses, options


def same(one: Any, other: Any, exact: bool = True) -> None:
    """Two MMUs are alike to the last bit, and so are their memories.

    Not `exact`: where one writes records and the other none, walks may keep bits that mean nothing.
    """
    names = ("arena", "vcpus", "contexts", "counters", "accesses", "options")
    for name, a, b in zip(names, state_of(one), state_of(other), strict=True):
        if a != b:
            for core in range(one.cores):
                assert one.entries(core).tolist() == other.entries(core).tolist()
            assert one.stats() == other.stats()
        assert a == b or (name == "arena" and not exact), name
    if one.mem is not None and one.mem is not other.mem:
        assert words_of(one.mem) == words_of(other.mem)


def well_formed(mmu: Any, core: int, guest_format: str) -> None:
    """Sets and ways within range, each page in its set, none twice in an array."""
    rows = mmu.entries(core)
    arrays = {array.name: array for array in mmu.geometry.tlbs}
    seen = set()
    for row in rows.tolist():
        name, at, way, page, size, *tag, _ = row
        kind, _, level = name.partition("-")
        by_address = False
        if name in arrays:
            spec = arrays[name].cache
            assert ("4K", "2M", "1G")[size] in arrays[name].pages
        elif name == "nested-tlb":
            spec = mmu.geometry.nested_tlb
        else:
            walk_cache = getattr(mmu.geometry, kind)
            spec = walk_cache.levels[int(level)] if level else walk_cache.cache
            by_address = walk_cache.kind == "page-table"
        assert at < spec.sets
        assert way < spec.ways
        if spec.hash == "linear":
            assert at == page % spec.sets
        else:
            assert at == (page ^ page >> int(spec.hash[4:])) % spec.sets
        if by_address and guest_format == "x86-32" and kind == "guest":
            continue  # two entries of four bytes have one number
        key = (name, page, size, *tag)
        assert key not in seen, row
        seen.add(key)
        assert tag[3] == 0 or mmu.mode == "nested"
