"""Native translation: in bulk, one call from Python, and the enumeration of all leaves."""

import numpy as np

import pyvirt as pv

from . import cloop
from .base import OnImages, must_agree, must_equal, open_native
from .data import COUNT
from .peers import PEERS
from .timing import paired, seconds, target, unit

ORDERS = ["random", "sorted"]


class Bulk(OnImages):
    """A batch of 2 M addresses, `out` given, beside the plain C loop over the flat image."""

    addresses = COUNT
    params = ORDERS
    param_names = ["order"]

    def setup(self, cache, order):
        native = self.need(cache, "native")
        self.vas, want = native.draw(order)
        memory = open_native(native)
        self.space = pv.AddressSpace(memory, native.cr3, levels=native.levels)
        self.no_memo = pv.AddressSpace(memory, native.cr3, levels=native.levels, memo=False)
        self.out = self.space.translate(self.vas)
        must_equal("pyvirt", self.out.pa, want)
        # Into the same arrays, so that neither profits from where they happen to lie.
        ram = native.ram()
        self.c_loop = cloop.walk(ram, native.cr3, native.levels, self.vas, self.out)
        must_agree(self.out, self.c_loop)
        self.pa = np.ones(len(self.vas), dtype=np.uint64)
        self.c_loop_pa = cloop.pa_walk(ram, native.cr3, native.levels, self.vas, self.pa)
        self.c_loop_pa()
        must_equal("C loop, pa only", self.pa, want)

    def ours(self):
        self.space.translate(self.vas, out=self.out)

    def time_ours(self, cache, order):
        self.ours()

    def time_ours_allocating(self, cache, order):
        self.space.translate(self.vas)

    def time_c_loop(self, cache, order):
        self.c_loop()

    def time_c_loop_pa_only(self, cache, order):
        self.c_loop_pa()

    @target(">=", 0.9)
    @unit("times the speed of C")
    def track_ratio_to_c(self, cache, order):
        return paired(self.ours, self.c_loop).ratio

    @unit("times the speed of C")
    def track_ratio_to_c_without_memo(self, cache, order):
        return paired(lambda: self.no_memo.translate(self.vas, out=self.out), self.c_loop).ratio

    @unit("times the speed of C that writes pa only")
    def track_ratio_to_c_pa_only(self, cache, order):
        return paired(self.ours, self.c_loop_pa).ratio


class _PeerCalls(OnImages):
    """Seconds per address, for the same addresses: ours in bulk, a peer's one call for each."""

    params = ORDERS
    param_names = ["order"]
    peer: str
    calls: int

    def setup(self, cache, order):
        native = self.need(cache, "native")
        peer = PEERS[self.peer](native)
        vas, want = native.draw(order)
        # Evenly spaced, so that a sorted sample still covers the whole address space.
        sample = np.linspace(0, COUNT - 1, self.calls).astype(np.intp)
        self.space = pv.AddressSpace(open_native(native), native.cr3, levels=native.levels)
        self.vas = vas[sample]
        self.out = self.space.translate(self.vas)
        must_equal("pyvirt", self.out.pa, want[sample])
        self.peer_call = peer.translate_all(vas[sample].tolist())
        must_equal(self.peer, np.array(self.peer_call(), dtype=np.uint64), want[sample])

    def ours(self):
        # often enough that one timing takes milliseconds
        for _ in range(COUNT // self.calls):
            self.space.translate(self.vas, out=self.out)

    def speedup(self):
        return paired(self.ours, self.peer_call).ratio * (COUNT // self.calls)


class MemProcFS(_PeerCalls):
    """Its `virt2phys` takes one address."""

    peer, calls = "memprocfs", 262_144

    @target(">=", 100)
    @unit("times faster for each address")
    def track_speedup_over_memprocfs(self, cache, order):
        return self.speedup()


class Volatility3(_PeerCalls):
    """Its `translate` takes one address."""

    peer, calls = "volatility3", 16_384

    @target(">=", 1000)
    @unit("times faster for each address")
    def track_speedup_over_volatility3(self, cache, order):
        return self.speedup()


class Scalar(OnImages):
    """One call from Python for each address, in random order."""

    calls = 20_000
    params = ["pyvirt", "memprocfs", "volatility3"]
    param_names = ["tool"]

    def setup(self, cache, tool):
        native = self.need(cache, "native")
        vas, want = native.draw("random", self.calls)
        if tool == "pyvirt":
            translate = pv.AddressSpace(
                open_native(native), native.cr3, levels=native.levels
            ).translate
            ints = vas.tolist()
            self.call = lambda: [translate(va) for va in ints]
            got = [translation.pa for translation in self.call()]
        else:
            self.call = PEERS[tool](native).translate_all(vas.tolist())
            got = self.call()
        must_equal(tool, np.array(got, dtype=np.uint64), want)

    @target("<=", {"pyvirt": 1000})
    @unit("ns")
    def track_call_ns(self, cache, tool):
        return min(seconds(self.call) for _ in range(5)) / self.calls * 1e9


class Leaves(OnImages):
    """Every mapping of the address space: 8,448 in the headline image."""

    def setup(self, cache):
        native = self.need(cache, "native")
        self.space = pv.AddressSpace(open_native(native), native.cr3, levels=native.levels)
        if len(self.space.leaves()) != native.leaves_total:
            raise AssertionError(f"{len(self.space.leaves())} leaves, not {native.leaves_total}")

    @target("<", 1e-3)
    def time_leaves(self, cache):
        self.space.leaves()

    def time_leaves_merged(self, cache):
        self.space.leaves(merge=True)


class LeavesVolatility3(OnImages):
    """Its `mapping` gives runs, so ours merges them as well; once, since it takes half a second."""

    def setup(self, cache):
        native = self.need(cache, "native")
        self.peer = PEERS["volatility3"](native)
        self.space = pv.AddressSpace(open_native(native), native.cr3, levels=native.levels)

    @unit("times faster")
    def track_speedup(self, cache):
        ours = min(seconds(lambda: self.space.leaves(merge=True)) for _ in range(9))
        return seconds(self.peer.leaves) / ours
