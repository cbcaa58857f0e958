"""The exit workloads of kvm_exits.csv, as the guest program of the data's README runs them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from oracle.slowshadow.guestwalk import GuestFault
from oracle.slowshadow.machine import (
    GDT_CODE,
    GDT_DATA,
    LOW_PDPT,
    STACK_TOP,
    Guest,
    build_mmu,
    write_identity_map,
)
from oracle.slowshadow.memory import ENTRIES, A, Memory, W
from oracle.slowshadow.rules import KVM, Rules

PARAMETERS = 0x1000
"""exits: "0x1000 parameters (u64 each): [0] workload, [1] N, [2] R, [3] K, [4] W, [5] gpa of the
first work PT, [6] warm, [7] cow, [8] pool base, [9] cow counter, [10] pool size 7168, [20] handler
runs"."""
FIRST_PT, COW, POOL_BASE, COW_COUNT, POOL_SIZE, HANDLER_RUNS = (
    PARAMETERS + 8 * i for i in (5, 7, 8, 9, 10, 20)
)
SPACES = 0x1200
"""exits: "0x1200 + 8k: CR3 of address space k"."""
ROOT, FIRST_WORK_TABLE = 0x100000, 0x107000
WORK = 0x100000000000
WORK_FRAMES = 0x800000
POOL, SWITCH_POOL = 7168, 14336
SECOND_POOL = 0x2400000
WARM_VALUE = 0x5A


@dataclass(frozen=True)
class Workload:
    """The parameters of a row of kvm_exits.csv."""

    workload: str
    N: int = 0
    R: int = 1
    K: int = 0
    W: int = 0
    warm: bool = False
    huge_backing: bool = False
    cow: bool = False

    @classmethod
    def of_row(cls, row: dict[str, str]) -> Workload:
        return cls(
            row["workload"],
            *(int(row[name]) for name in ("N", "R", "K", "W")),
            *(row[name] == "1" for name in ("warm", "huge_backing", "cow")),
        )

    @property
    def pages_per_space(self) -> int:
        return self.W if self.workload == "switch" else self.N


@dataclass
class Tables:
    """exits: "0x100000 up: tables, consecutive pages in this order: PML4, low PDPT, low PD, 4 low
    PTs (0x103000-0x106000), then work PDPT 0x107000, PD 0x108000, PTs 0x109000 up (contiguous).
    `switch`: space 0 is this chain; each next space adds PML4, PDPT, PD, PT(s), and copies PML4[0]
    of space 0". "Table entries are address|7, leaf entries frame|3".
    """

    memory: Memory
    next_table: int = FIRST_WORK_TABLE
    roots: list[int] = field(default_factory=list)
    first_pts: list[int] = field(default_factory=list)

    def _take(self, count: int = 1) -> int:
        table, self.next_table = self.next_table, self.next_table + 0x1000 * count
        return table

    def add_space(self, frames: list[int]) -> None:
        """An address space that maps these frames from `WORK` up."""
        root = self._take() if self.roots else ROOT
        pdpt, pd = self._take(), self._take()
        pts = -(-len(frames) // ENTRIES)
        first_pt = self._take(pts)
        self.memory.write(root, LOW_PDPT | 7)
        self.memory.write(root + 8 * (WORK >> 39), pdpt | 7)
        self.memory.write(pdpt, pd | 7)
        for i in range(pts):
            self.memory.write(pd + 8 * i, first_pt + 0x1000 * i | 7)
        for i, frame in enumerate(frames):
            self.memory.write(first_pt + 8 * i, frame | 3)
        self.roots.append(root)
        self.first_pts.append(first_pt)


def build_tables(memory: Memory, w: Workload) -> Tables:
    """Write the guest's tables and its parameters."""
    write_identity_map(memory)
    tables = Tables(memory)
    if w.workload == "switch":
        for k in range(w.K):
            # "page i of space k -> gpa 0x800000 + 4096*((kW+i) mod 14336)"
            numbers = [(k * w.W + i) % SWITCH_POOL for i in range(w.W)]
            tables.add_space([WORK_FRAMES + 0x1000 * n for n in numbers])
    else:
        # "work page i at VA 0x100000000000+4096*i -> gpa 0x800000+4096*(i mod 7168)"
        tables.add_space([WORK_FRAMES + 0x1000 * (i % POOL) for i in range(w.N)])
    memory.write(FIRST_PT, tables.first_pts[0])
    memory.write(COW, w.cow)
    # "[8] pool base (`churn` 0x800000, else 0x2400000)"
    memory.write(POOL_BASE, WORK_FRAMES if w.workload == "churn" else SECOND_POOL)
    memory.write(POOL_SIZE, POOL)
    for k, root in enumerate(tables.roots):
        memory.write(SPACES + 8 * k, root)
    return tables


class Runner:
    """The guest's program, one method a workload: "outer loop = rounds, inner = pages in order".

    `switch` takes the loads of the CR3 values from memory, all others address work page i at
    `page(i)` and its entry, through the identity map, at `entry(i)`.
    """

    def __init__(self, guest: Guest, workload: Workload, tables: Tables) -> None:
        self.guest = guest
        self.w = workload
        self.tables = tables

    @staticmethod
    def page(i: int) -> int:
        return WORK + 0x1000 * i

    def entry(self, i: int) -> int:
        return self.tables.first_pts[0] + 8 * i

    # -- before the count

    def prepare(self) -> None:
        """exits: "Before the count: fetch from 0x10000, writes to the stack page, reads (no write)
        of 0x1000; if warm, the writes to the work pages (`switch`: per space load 0x1200+8k, MOV
        CR3, W writes; at the end MOV CR3 to space 0)".
        """
        self.guest.store(STACK_TOP - 8, 0)
        self.guest.load(PARAMETERS)
        if not self.w.warm:
            return
        if self.w.workload == "switch":
            self._over_spaces()
            self._load_space(0)
        else:
            self._write_all()

    # -- inside the count

    def run(self) -> None:
        body: dict[str, Callable[[], None]] = {
            "touch": self.touch,
            "random": self.random,
            "churn": self.churn,
            "switch": self.switch,
            "wprotect": self.wprotect,
            "wprotect_cow": self.wprotect,
            "read_then_write": self.read_then_write,
            "clear_accessed": self.clear_accessed,
        }
        if self.w.workload not in body:
            raise ValueError(f"workload {self.w.workload!r}: one of {tuple(body)}")
        body[self.w.workload]()

    def _write_all(self) -> None:
        for i in range(self.w.N):
            self.guest.store(self.page(i), WARM_VALUE)

    def touch(self) -> None:
        """ "R passes, write pages 0..N-1" """
        for _ in range(self.w.R):
            self._write_all()

    def random(self) -> None:
        """ "R writes to pages (x>>33)%N, x = x*6364136223846793005+1442695040888963407 mod 2^64,
        seed 12345"; "`random` advances x before each write".
        """
        x = 12345
        for _ in range(self.w.R):
            x = (x * 6364136223846793005 + 1442695040888963407) & (1 << 64) - 1
            self.guest.store(self.page((x >> 33) % self.w.N), x)

    def churn(self) -> None:
        """ "R rounds: for each page PTE=0, INVLPG; then for each page i PTE = frame (7i+r+1) mod
        7168 | 3, then write it"; "`churn` loads [8] and [10] before each new PTE".
        """
        guest = self.guest
        for r in range(self.w.R):
            for i in range(self.w.N):
                guest.store(self.entry(i), 0)
                guest.invlpg(self.page(i))
            for i in range(self.w.N):
                base, size = guest.load(POOL_BASE), guest.load(POOL_SIZE)
                guest.store(self.entry(i), base + 0x1000 * ((7 * i + r + 1) % size) | 3)
                guest.store(self.page(i), r)

    def _load_space(self, k: int) -> None:
        """ "`switch` loads 0x1200+8k before MOV CR3" """
        self.guest.mov_cr3(self.guest.load(SPACES + 8 * k))

    def _over_spaces(self) -> None:
        for k in range(self.w.K):
            self._load_space(k)
            for i in range(self.w.W):
                self.guest.store(self.page(i), k)

    def switch(self) -> None:
        """ "R rounds over K address spaces [...]: MOV CR3, write W pages" """
        for _ in range(self.w.R):
            self._over_spaces()

    def wprotect(self) -> None:
        """ "R rounds: for each page clear W, INVLPG; then write each: guest #PF, handler sets W,
        INVLPG, IRET"; "The write is then repeated."
        """
        guest = self.guest
        for r in range(self.w.R):
            for i in range(self.w.N):
                guest.store(self.entry(i), guest.load(self.entry(i)) & ~W)
                guest.invlpg(self.page(i))
            for i in range(self.w.N):
                try:
                    guest.store(self.page(i), r)
                except GuestFault as fault:
                    self._handle(fault)
                    guest.store(self.page(i), r)

    def _handle(self, fault: GuestFault) -> None:
        """exits: "Handler: 11 pushes and a call, load [5], load and store [20], load PTE, load
        [7], with cow: load [8], load and store [9], load [10], frame = [8] + 4096*(counter mod
        [10]); store PTE|3 (A, D kept); INVLPG of CR2; pops; IRETQ (reads 0x3008, 0x3010)."
        """
        guest = self.guest
        rsp = guest.deliver(fault)
        for n in range(1, 13):
            guest.store(rsp - 8 * n, 0)
        at = guest.load(FIRST_PT) + 8 * ((fault.va - WORK) >> 12)
        guest.store(HANDLER_RUNS, guest.load(HANDLER_RUNS) + 1)
        entry = guest.load(at)
        if guest.load(COW):
            base, count = guest.load(POOL_BASE), guest.load(COW_COUNT)
            guest.store(COW_COUNT, count + 1)
            entry = base + 0x1000 * (count % guest.load(POOL_SIZE)) | entry & 0xFFF
        guest.store(at, entry | 3)
        guest.invlpg(fault.va)
        for n in range(12, 0, -1):
            guest.load(rsp - 8 * n)
        for word in range(6):
            guest.load(rsp + 8 * word)
        guest.load(GDT_CODE)
        guest.load(GDT_DATA)

    def read_then_write(self) -> None:
        """ "read pages 0..N-1, then write them" """
        for i in range(self.w.N):
            self.guest.load(self.page(i))
        self._write_all()

    def clear_accessed(self) -> None:
        """ "R rounds: clear A in each PTE (no INVLPG), reload CR3, read each"; "loads 0x1200 and
        reloads the same CR3 each round".
        """
        guest = self.guest
        for _ in range(self.w.R):
            for i in range(self.w.N):
                guest.store(self.entry(i), guest.load(self.entry(i)) & ~A)
            self._load_space(0)
            for i in range(self.w.N):
                guest.load(self.page(i))


def run_workload(workload: Workload, mode: str, rules: Rules = KVM) -> dict[str, int]:
    """Run one workload in one mode; the counts between the two OUT instructions."""
    memory = Memory()
    tables = build_tables(memory, workload)
    mmu = build_mmu(mode, memory, huge_backing=workload.huge_backing, rules=rules)
    runner = Runner(Guest(mmu), workload, tables)
    runner.prepare()
    runner.guest.out()
    start = dict(mmu.counters)
    handled = memory.read(HANDLER_RUNS)
    runner.run()
    runner.guest.out()
    counts = mmu.counters.since(start)
    counts["guest_pf_handled"] = memory.read(HANDLER_RUNS) - handled
    return counts
