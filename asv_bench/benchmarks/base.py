"""The base of the benchmarks that need an image: expanded once, shared by all of them."""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import pyvirt as pv

from .data import Native, Nested


def open_native(native: Native) -> pv.PhysicalMemory:
    """Give the state that opening the image leaves, without waiting for the decompressor again."""
    memory = pv.PhysicalMemory(native.ram_bytes)
    flat = native.ram()
    for first, end in native.extents:
        memory.load(first, flat[first:end])
    return memory


def must_equal(what: str, got: np.ndarray, want: np.ndarray) -> None:
    """Refuse to time a wrong answer."""
    wrong = int(np.count_nonzero(got != want))
    if wrong:
        raise AssertionError(f"{what}: {wrong} of {len(want)} addresses are wrong")


def must_agree(out: pv.Translations, c_loop: Callable[[], None]) -> None:
    """Check that the C loop puts the same into the four arrays as pyvirt just did."""
    names = ("pa", "code", "page_shift", "flags")
    ours = {name: getattr(out, name).copy() for name in names}
    c_loop()
    for name in names:
        must_equal(f"C loop, {name}", getattr(out, name), ours[name])


class OnImages:
    """Expands the images in asv's own temporary folder, which it removes at the end.

    ``setup_cache`` is one function for all subclasses, so asv runs it once.
    """

    timeout = 300
    timer = time.process_time

    def setup_cache(self) -> dict:
        here = Path.cwd()
        return {
            "native": Native.prepare(here),
            "npt": Nested.prepare(here, "npt"),
            "shadow": Nested.prepare(here, "shadow"),
        }

    @staticmethod
    def need(cache: dict, key: str):
        """The prepared set, or a skip with the reason."""
        if cache[key] is None:
            raise NotImplementedError(f"no {key} image set in PYVIRT_DATA or tests/data")
        return cache[key]
