"""`pyvirt.Hypervisor`: events a second, against its own nested mode, and the measured guests."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np

import pyvirt as pv
from pyvirt.traces import EVENT_DTYPE, Arg, Op
from pyvirt.validation import Context, experiments

from .timing import paired, seconds, target, unit

ACCESSES = 1_000_000
ROOT, PDPT, PD, TABLES = 0x100000, 0x101000, 0x102000, 0x200000
PAGES_AT, FRAMES_AT = 0x40000000, 0x8000000
PHYSMAP = 0xFFFF800000000000
PAGE = 4096
REPEATS = 5


def machine(pages: int, **options) -> pv.Hypervisor:
    """A guest with some 4 KiB pages, and its own mapping of its tables."""
    memory = pv.PhysicalMemory(256 << 20)
    memory.write_u64(ROOT, PDPT | 7)
    memory.write_u64(PDPT + 8, PD | 7)
    for table in range(-(-pages // 512)):
        memory.write_u64(PD + 8 * table, TABLES + PAGE * table | 7)
    frames = np.arange(pages, dtype=np.uint64) * np.uint64(PAGE) + np.uint64(FRAMES_AT)
    memory.write(TABLES, (frames | np.uint64(3)).tobytes())
    memory.write_u64(ROOT + 8 * 256, 0x110000 | 7)
    memory.write_u64(0x110000, 0x111000 | 7)
    for table in range(8):
        memory.write_u64(0x111000 + 8 * table, 0x112000 + PAGE * table | 7)
    own = np.arange(4096, dtype=np.uint64) << np.uint64(12)
    memory.write(0x112000, (own | np.uint64(0x63)).tobytes())
    return pv.Hypervisor(memory, cr3=ROOT, page_limit=1024, **options)


def events(count: int, *steps: tuple) -> np.ndarray:
    """Repeat steps (op, address, value, arg), each number or array, `count` times."""
    made = np.zeros((count, len(steps)), EVENT_DTYPE)
    for column, (op, addr, value, arg) in enumerate(steps):
        made[:, column]["op"] = op
        made[:, column]["size"] = 8 if op <= Op.MODIFY else 0
        made[:, column]["addr"], made[:, column]["value"] = addr, value
        made[:, column]["arg"] = arg
    return made.reshape(-1)


def places(pages: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Addresses of pages, and of their entries in the guest's mapping of its tables."""
    index = pages.astype(np.uint64)
    return (
        index * np.uint64(PAGE) + np.uint64(PAGES_AT),
        index * np.uint64(8) + np.uint64(PHYSMAP + TABLES),
    )


def hits(pages: int) -> np.ndarray:
    """Loads and stores (30 %) of pages at random."""
    rng = np.random.default_rng(12345)
    va, _ = places(rng.integers(0, pages, ACCESSES))
    made = events(ACCESSES, (Op.LOAD, va, 0, 0))
    made["op"][rng.random(ACCESSES) < 0.3] = Op.STORE
    return made


def rate(run: pv.Hypervisor, stream: np.ndarray) -> float:
    """Million events a second of CPU time, the best of some runs."""
    run.run(stream)
    return len(stream) / min(seconds(lambda: run.run(stream)) for _ in range(REPEATS)) / 1e6


class ShadowHits:
    """Accesses that need no exit."""

    params = [48, 1024, 4096, 16384]
    param_names = ["pages"]

    @target(">=", 20.0)
    @unit("million events/s")
    def track_hits(self, pages):
        return rate(machine(pages), hits(pages))

    @target("<=", 2.0)
    @unit("times the time of nested tables")
    def track_time_over_nested(self, pages):
        stream = hits(pages)
        shadow, nested = machine(pages), machine(pages, tables="tdp")
        shadow.run(stream)
        nested.run(stream)
        pair = paired(lambda: nested.run(stream), lambda: shadow.run(stream))
        return pair.ratio


class ShadowChurn:
    """Guests that edit their tables all the time."""

    params = [
        f"{stream}, {policy}"
        for stream in ("map", "fork", "switch")
        for policy in ("unsync", "write_protect", "trace", "xen")
    ]
    param_names = ["stream and policy"]
    pages = 1024

    def stream(self, name: str) -> np.ndarray:
        """One round of what a system does to 1,024 pages."""
        rng = np.random.default_rng(12345)
        va, pte = places(rng.permutation(self.pages))
        if name == "map":  # unmap, flush, map another frame, use it
            frames = rng.permutation(self.pages).astype(np.uint64) * np.uint64(PAGE)
            entries = frames + np.uint64(FRAMES_AT) | np.uint64(3)
            return events(
                self.pages,
                (Op.STORE, pte, 0, Arg.GIVEN),
                (Op.INVLPG, va, 0, 0),
                (Op.STORE, pte, entries, Arg.GIVEN),
                (Op.STORE, va, 0, 0),
            )
        if name == "switch":  # a load of CR3 for each 16 accesses
            va = va.reshape(-1, 16)
            accesses = [(Op.STORE, va[:, i], 0, 0) for i in range(16)]
            return events(len(va), (Op.MOV_CR3, 0, ROOT, 0), *accesses)
        protect = events(
            self.pages,
            (Op.LOAD, pte, 0, 0),
            (Op.STORE, pte, (1 << 64) - 3, Arg.AND),
        )
        flush = events(1, (Op.MOV_CR3, 0, ROOT, 0))
        write = events(
            self.pages,
            (Op.STORE, va, 0, 0),
            (Op.LOAD, pte, 0, Arg.HANDLER),
            (Op.STORE, pte, 2, Arg.OR | Arg.HANDLER),
            (Op.INVLPG, va, 0, Arg.HANDLER),
            (Op.STORE, va, 0, Arg.HANDLER),
        )
        return np.concatenate([protect, flush, write])

    @target(">=", 3.0)
    @unit("million events/s")
    def track_events(self, parameter):
        stream, policy = parameter.split(", ")
        rules = pv.ShadowRules.policy(policy)
        return rate(machine(self.pages, rules=rules), np.tile(self.stream(stream), 20))


class FrontHits:
    """Accesses through a processor in front, against `pyvirt.MMU` on the guest's own tables."""

    params = [48, 1024, 4096, 16384]
    param_names = ["pages"]

    @unit("million events/s")
    def track_shadow(self, pages):
        return rate(machine(pages, tlb="reference"), hits(pages))

    @unit("million events/s")
    def track_tdp(self, pages):
        return rate(machine(pages, tables="tdp", tlb="reference"), hits(pages))

    @unit("times the time of MMU.run")
    def track_time_over_mmu(self, pages):
        stream = hits(pages)
        front = machine(pages, tlb="reference")
        mmu = pv.MMU("native", machine(pages).mem, cr3=ROOT, tlb="reference")
        front.run(stream)
        mmu.run(stream)
        return paired(lambda: mmu.run(stream), lambda: front.run(stream)).ratio


class AgileChurn:
    """A guest that edits its tables all the time, under agile paging."""

    params = [
        f"{stream}, {back}" for stream in ("map", "fork", "switch") for back in ("dirty", "all")
    ]
    param_names = ["stream and what returns"]

    @unit("million events/s")
    def track_events(self, parameter):
        stream, back = parameter.split(", ")
        churn = ShadowChurn()
        run = machine(
            churn.pages,
            tables="agile",
            tlb="reference",
            rules=pv.ShadowRules.policy("write_protect", flood_limit=0),
            agile=pv.AgileRules(interval=10_000, back=back),
        )
        return rate(run, np.tile(churn.stream(stream), 20))


class MeasuredGuests:
    """All exit workloads and event programs that there are, with reading them."""

    timeout = 120

    @target("<=", 2.0)
    @unit("s")
    def track_all_guests(self):
        folder = os.environ.get("PYVIRT_DATA")
        data = Path(folder) if folder else Path(__file__).parents[2] / "tests" / "data"
        table = experiments()

        def run() -> None:
            for id in ("A9", "A9b"):
                outcome = table[id].run(Context(data))
                if outcome.verdict == "skip":
                    raise NotImplementedError(outcome.reason)
                assert outcome.verdict == "pass", outcome.reason

        run()
        return min(seconds(run, time.process_time) for _ in range(3))


class ShadowMemory:
    """What 10^8 events add to the process, beside the tables' fixed size."""

    timeout = 600

    @target("<=", 1.0)
    @unit("MiB")
    def track_growth(self):
        run = machine(1024)
        stream = np.tile(ShadowChurn().stream("map"), 244)
        run.run(stream)
        before = resident()
        for _ in range(100):
            run.run(stream)
        return (resident() - before) / 2**20


def resident() -> int:
    """Bytes of this process in memory."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        raise NotImplementedError("needs /proc") from None
    return pages * os.sysconf("SC_PAGE_SIZE")
