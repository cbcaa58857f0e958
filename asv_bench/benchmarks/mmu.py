"""`pyvirt.MMU` over 10 M addresses: against C loops of the same work, itself, and pycachesim.

Everything runs the reference geometry, 64/4 + 1536/12 LRU. Every call starts with empty TLBs, and
every tool's counts, and C's addresses and codes, are compared before anything is timed.
"""

from __future__ import annotations

import time
from functools import cached_property
from pathlib import Path

import numpy as np

import pyvirt as pv

from . import streams
from .base import must_equal
from .mmu_loop import POLICIES, Loop
from .pycachesim_peer import PyCacheSim, boxed
from .streams import COUNT, EXPECTED, NAMES, Counts, Tables
from .timing import paired, seconds, target, unit

# These stop their search at the match; a mispredicted branch is what bounds L1 hits in them.
BRANCHING = ["mtf", "stamp"]
HIT_BOUND = ["zipf48", "zipf1k", "zipf64k"]
# Seconds a call on some streams, so few pairs have to do.
PAIRS = {"least": 3, "budget_s": 1.5}


def make(mode: str, tables: Tables | None, **options) -> pv.MMU:
    """An MMU of the reference geometry over the tables of a stream."""
    if tables is None:
        return pv.MMU(mode, tlb="reference", **options)
    roots = {"cr3": tables.root}
    if tables.nested:
        roots["nested_root"] = tables.host_root
    return pv.MMU(mode, tables.memory, **roots, tlb="reference", **options)


def counts_of(mmu: pv.MMU) -> Counts:
    """Hits by level, and the rest of COUNT addresses."""
    stats = mmu.stats()
    # by level, then by page size
    l1, l2 = (int(n) for n in np.reshape(stats["tlb_hits"], (-1, 3)).sum(axis=1)[:2])
    return Counts(l1, l2, COUNT - l1 - l2)


def must_count(what: str, got: Counts, want: Counts) -> None:
    """Refuse to time a wrong simulation."""
    if got != want:
        raise AssertionError(f"{what}: {got}, expected {want}")


class Run:
    """A call that translates all addresses of a stream, with empty caches at first."""

    def __init__(self, mmu: pv.MMU, vas: np.ndarray, out: pv.Accesses) -> None:
        self.mmu = mmu
        self._empty = mmu.snapshot()
        self._vas, self._out = vas, out

    def __call__(self) -> None:
        self.mmu.restore(self._empty)
        self.mmu.translate(self._vas, "r", out=self._out)

    def counts(self) -> Counts:
        """Of the last call."""
        return counts_of(self.mmu)


class _OnStreams:
    """Draws the streams into asv's own temporary folder; one function, so asv runs it once."""

    timeout = 900
    timer = time.process_time
    addresses = COUNT
    params = NAMES
    param_names = ["stream"]
    mode: str

    def setup_cache(self) -> dict[str, str]:
        return streams.draw(Path.cwd())

    def setup(self, files, stream):
        self.stream = stream
        if stream not in files:
            raise NotImplementedError("docs/examples/data has no recorded trace")
        self.vas = np.load(files[stream])[:COUNT]
        self.out = pv.Accesses.empty(len(self.vas))
        self.ours = self.new()

    @cached_property
    def tables(self) -> Tables | None:
        return None if self.mode == "tlb-only" else Tables.build(self.vas, self.mode == "nested")

    def new(self, **options) -> Run:
        return Run(make(self.mode, self.tables, **options), self.vas, self.out)

    def checked(self) -> Counts:
        """Run ours once; compare with what is known of the stream."""
        self.ours()
        counts = self.ours.counts()
        if self.stream in EXPECTED:
            must_count("pyvirt", counts, EXPECTED[self.stream])
        return counts

    @cached_property
    def loops(self) -> dict[str, tuple[float, Loop]]:
        """The C loops by policy, each compared with ours, and the seconds that it took then.

        They write into the same arrays, so that neither profits from where they happen to lie.
        """
        counts = self.checked()
        pa, code = self.out.pa.copy(), self.out.code.copy()
        made = {}
        for policy in POLICIES:
            loop = Loop(self.mode, policy, self.tables, self.vas, self.out.pa, self.out.code)
            self.out.pa[:], self.out.code[:] = 1, 0xFFFF
            made[policy] = seconds(loop), loop
            must_count(f"C loop, {policy}", Counts(*loop.counts[:3]), counts)
            must_equal(f"C loop, {policy}, pa", self.out.pa, pa)
            must_equal(f"C loop, {policy}, code", self.out.code, code)
        return made

    def quickest(self, policies: list[str]) -> Loop:
        """Which way to keep LRU is best in C depends on the stream."""
        return min((self.loops[policy] for policy in policies), key=lambda made: made[0])[1]


class _AgainstC(_OnStreams):
    def setup(self, files, stream):
        super().setup(files, stream)
        self.checked()

    def time_ours(self, files, stream):
        self.ours()

    @unit("ns an address")
    def track_c_loop_ns(self, files, stream):
        loop = self.quickest(POLICIES)
        return min(seconds(loop) for _ in range(2)) / len(self.vas) * 1e9

    @target(">=", 0.9)
    @unit("times the speed of C")
    def track_ratio_to_c(self, files, stream):
        return paired(self.ours, self.quickest(POLICIES), **PAIRS).ratio

    # only L1 hits have a target: there the search is all there is
    @target(">=", {"zipf48": 2.0})
    @unit("times the speed of C that branches")
    def track_ratio_simd_over_plain_c(self, files, stream):
        if stream != "zipf48":
            raise NotImplementedError("asked of L1 hits only")
        return paired(self.ours, self.quickest(BRANCHING)).ratio


class MmuNative(_AgainstC):
    """Four levels of tables, and paging-structure caches."""

    mode = "native"


class MmuNested(_AgainstC):
    """Two dimensions of four levels, caches in both, and a nested TLB."""

    mode = "nested"


class MmuTlbOnly(_AgainstC):
    """No tables: each address is its own translation."""

    mode = "tlb-only"


class _Prefetch(_OnStreams):
    """Adaptive prefetch of table entries against none."""

    def gain(self):
        off = self.new(prefetch=False)
        off()
        must_count("pyvirt without prefetch", off.counts(), self.checked())
        return paired(self.ours, off, **PAIRS).ratio


class MmuPrefetchNative(_Prefetch):
    mode = "native"

    @target(">=", {"uni64G": 2.0} | dict.fromkeys(HIT_BOUND, 0.97) | {"trace": 0.97})
    @unit("times the speed without prefetch")
    def track_gain(self, files, stream):
        return self.gain()


class MmuPrefetchNested(_Prefetch):
    mode = "nested"

    @target(">=", {"uni64G": 3.0} | dict.fromkeys(HIT_BOUND, 0.97) | {"trace": 0.97})
    @unit("times the speed without prefetch")
    def track_gain(self, files, stream):
        return self.gain()


class MmuNestedToNative(_OnStreams):
    """Walks in two dimensions against one: what hits must not notice."""

    mode = "nested"

    @target(">=", {"zipf48": 0.95})
    @unit("times the speed of native")
    def track_ratio_to_native(self, files, stream):
        native = Run(make("native", Tables.build(self.vas)), self.vas, self.out)
        native()
        must_count("native", native.counts(), self.checked())
        return paired(self.ours, native, **PAIRS).ratio


class MmuPyCacheSim(_OnStreams):
    """tlb-only in one batch against its batch; both count the same hits."""

    mode = "tlb-only"

    @target(">=", 2.0)
    @unit("times the speed of pycachesim")
    def track_ratio_to_pycachesim(self, files, stream):
        peer = PyCacheSim()
        addresses = boxed(self.vas)
        peer.load(addresses)
        must_count("pycachesim", peer.counts, self.checked())
        # It cannot be emptied, so it goes on with what it has: the same work but for a few misses.
        return paired(self.ours, lambda: peer.load(addresses), **PAIRS).ratio


class MmuScalar(_OnStreams):
    """One call from Python for each address: a loop over a list of ints."""

    calls = 100_000
    params = ["zipf48", "zipf1k", "zipf64k", "uni64G"]
    mode = "tlb-only"

    def setup(self, files, stream):
        super().setup(files, stream)
        self.vas = self.vas[: self.calls]
        self.ints = boxed(self.vas)

    def each(self, load):
        def call():
            for va in self.ints:
                load(va)

        return call

    def against(self, name):
        if self.stream == "uni64G":
            raise NotImplementedError("pycachesim drops bits 63:32 of a single address")
        peer = PyCacheSim()
        theirs = self.each(getattr(peer, name))
        theirs()
        mmu = make(self.mode, None)
        ours = self.each(mmu.load)
        ours()
        l1, l2, _ = counts_of(mmu)
        must_count("pyvirt", Counts(l1, l2, self.calls - l1 - l2), peer.counts)
        return paired(ours, theirs).ratio

    @target(">=", 10.0)
    @unit("times the speed of pycachesim")
    def track_ratio_to_pycachesim(self, files, stream):
        return self.against("load")

    @unit("times the speed of the method in its C module")
    def track_ratio_to_builtin(self, files, stream):
        return self.against("load_builtin")

    def nanoseconds(self, mmu):
        call = self.each(mmu.load)
        call()
        return min(seconds(call) for _ in range(9)) / self.calls * 1e9

    @unit("ns a call, the loop included")
    def track_tlb_only_ns(self, files, stream):
        return self.nanoseconds(make("tlb-only", None))

    @unit("ns a call, the loop included")
    def track_native_ns(self, files, stream):
        return self.nanoseconds(make("native", Tables.build(self.vas)))

    @unit("ns a call, the loop included")
    def track_nested_ns(self, files, stream):
        return self.nanoseconds(make("nested", Tables.build(self.vas, nested=True)))
