"""Opening an image, and what it holds afterwards."""

import lzma
import os
import time

import numpy as np

import pyvirt as pv

from .base import OnImages
from .timing import paired, target, unit


def decompress(path: str) -> int:
    """Decompress a whole file, in pieces that are dropped: as little work as the format allows."""
    total = 0
    decompressor = lzma.LZMADecompressor()
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            total += len(decompressor.decompress(piece))
    return total


class Open(OnImages):
    """The compressed image, opened as a user would; and the same RAM as a raw file."""

    number = 1
    repeat = (1, 3, 10.0)
    warmup_time = 0

    def setup(self, cache):
        self.native = self.need(cache, "native")

    def open(self):
        return pv.PhysicalMemory.open(self.native.image, size=self.native.ram_bytes)

    def time_open_compressed(self, cache):
        self.open()

    def time_decompress_only(self, cache):
        decompress(self.native.image)

    def time_open_raw(self, cache):
        pv.PhysicalMemory.open(self.native.flat)


class OpenToDecompressor(OnImages):
    """Opening the compressed image, against `lzma` alone on the same file, in turn."""

    def setup(self, cache):
        self.native = self.need(cache, "native")
        if os.path.getsize(self.native.image) < 1 << 20:
            raise NotImplementedError("an image of a few KiB says nothing about opening large ones")

    def cost(self, timer):
        native = self.native
        return paired(
            lambda: decompress(native.image),
            lambda: pv.PhysicalMemory.open(native.image, size=native.ram_bytes),
            least=3,
            timer=timer,
        ).ratio

    @target("<=", 1.25)
    @unit("times the CPU time of the decompressor")
    def track_cpu(self, cache):
        return self.cost(time.process_time)

    @unit("times the elapsed time of the decompressor")
    def track_elapsed(self, cache):
        return self.cost(time.perf_counter)


class Held(OnImages):
    """Bytes held after opening, over the bytes of the frames that are not all zero."""

    def setup(self, cache):
        native = self.need(cache, "native")
        self.memory = pv.PhysicalMemory.open(native.image, size=native.ram_bytes)
        flat = native.ram()
        self.frames = sum(
            np.count_nonzero(flat[a:b].view(np.uint64).reshape(-1, 512).any(axis=1))
            for a, b in native.extents
        )

    @target("<=", 1.1)
    @unit("times the non-zero frames")
    def track_bytes_held(self, cache):
        return self.memory.nbytes / (self.frames * 4096)
