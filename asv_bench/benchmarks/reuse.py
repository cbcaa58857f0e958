"""TLBs of all sizes in one pass, beside the C loop of one size."""

from __future__ import annotations

import ctypes

import numpy as np

from pyvirt._core.reuse import SETS, ReuseProfile
from pyvirt._core.stack import StackProfile

from .cloop import library
from .mmu import PAIRS, _OnStreams
from .timing import paired, target, unit


class _Sweeps(_OnStreams):
    """All TLBs of some numbers of sets, of 1 to 16 ways each, in one pass."""

    sets: tuple[int, ...]

    def setup(self, files, stream):
        if stream not in files:
            raise NotImplementedError("docs/examples/data has no recorded trace")
        self.vas = np.load(files[stream])
        self.profile = self.swept("auto")
        if len(self.profile.table()) < 100:
            raise AssertionError("fewer than 100 configurations")

    def swept(self, kernel: str) -> ReuseProfile:
        profile = ReuseProfile(self.sets, kernel=kernel)
        profile.feed(self.vas)
        return profile

    def c_loop(self, name: str, sets: int, ways: int):
        """A call of the loop, compared with ours."""
        function = getattr(library("reuse_loop.c"), name)
        function.restype = ctypes.c_uint64
        arguments = ctypes.c_void_p(self.vas.ctypes.data), ctypes.c_size_t(len(self.vas))
        if function(*arguments) != self.profile.misses(sets, ways):
            raise AssertionError(f"{name} counts other misses than pyvirt")
        return lambda: function(*arguments)

    def cost(self, kernel: str, loop) -> float:
        """Runs of the loop that the whole pass is worth."""
        return paired(loop, lambda: self.swept(kernel), **PAIRS).ratio


class Reuse(_Sweeps):
    """208 TLBs: 1 to 4096 sets. What more of them cost; the target is asked of a hundred, below."""

    sets = SETS

    def time_ours(self, files, stream):
        self.swept("auto")

    @unit("times one 64/4 TLB in C, for 208 TLBs")
    def track_cost_of_64_4(self, files, stream):
        return self.cost("auto", self.c_loop("misses_64_4", 16, 4))

    @unit("times one 1536/12 TLB in C, for 208 TLBs")
    def track_cost_of_1536_12(self, files, stream):
        return self.cost("auto", self.c_loop("misses_1536_12", 128, 12))

    @unit("times one 1536/12 TLB in C, with AVX2")
    def track_cost_avx2(self, files, stream):
        return self.cost("avx2", self.c_loop("misses_1536_12", 128, 12))

    @unit("times one 1536/12 TLB in C, without SIMD")
    def track_cost_portable(self, files, stream):
        return self.cost("portable", self.c_loop("misses_1536_12", 128, 12))

    @unit("times one 1536/12 TLB in C, for fully associative ones of every size")
    def track_cost_of_every_size(self, files, stream):
        def every_size():
            StackProfile().feed(self.vas)

        return paired(self.c_loop("misses_1536_12", 128, 12), every_size, **PAIRS).ratio


class ReuseOfHundred(_Sweeps):
    """112 TLBs, of 16 to 16,384 entries: 16 to 1024 sets. Both C loops simulate one of them."""

    sets = (16, 32, 64, 128, 256, 512, 1024)

    @target("<=", 10)
    @unit("times one 64/4 TLB in C, for 112 TLBs")
    def track_cost_of_64_4(self, files, stream):
        return self.cost("auto", self.c_loop("misses_64_4", 16, 4))

    @target("<=", 10)
    @unit("times one 1536/12 TLB in C, for 112 TLBs")
    def track_cost_of_1536_12(self, files, stream):
        return self.cost("auto", self.c_loop("misses_1536_12", 128, 12))

    @unit("times one 1536/12 TLB in C, for 112 TLBs, with AVX2")
    def track_cost_avx2(self, files, stream):
        return self.cost("avx2", self.c_loop("misses_1536_12", 128, 12))
