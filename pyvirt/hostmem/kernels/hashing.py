# Numba infers the types of kernels, and its decorators hide them.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"
"""A 64-bit hash for each page. It finds candidates: equality is decided by comparing pages."""

from __future__ import annotations

import numpy as np
from numba import njit

__all__ = ["hash_pages", "same_pages"]


@njit(cache=True, nogil=True)
def hash_pages(words, out):
    """Hash each row of 512 words; eight lanes, so that one need not wait for another."""
    lanes = np.empty(8, dtype=np.uint64)
    factor = np.uint64(0x9E3779B97F4A7C15)
    for page in range(words.shape[0]):
        for lane in range(8):
            lanes[lane] = np.uint64(lane + 1) * factor
        for at in range(0, 512, 8):
            for lane in range(8):
                mixed = (lanes[lane] ^ words[page, at + lane]) * factor
                lanes[lane] = mixed ^ (mixed >> np.uint64(29))
        whole = np.uint64(0)
        for lane in range(8):
            whole = (whole ^ lanes[lane]) * factor
            whole ^= whole >> np.uint64(32)
        out[page] = whole


@njit(cache=True, nogil=True)
def same_pages(one, one_rows, two, two_rows, out):
    """Compare page ``one_rows[i]`` of one image with ``two_rows[i]`` of another, word by word."""
    for i in range(len(one_rows)):
        a, b = one_rows[i], two_rows[i]
        same = True
        for at in range(512):
            same &= one[a, at] == two[b, at]
        out[i] = same
