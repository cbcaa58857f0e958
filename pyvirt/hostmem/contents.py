"""Page sharing over real contents: which pages of memory images are equal, and what that saves.

As ESX does it (Waldspurger, OSDI 2002, 4): a 64-bit hash finds candidates, a comparison of all
4,096 bytes decides. With salts, only pages of VMs with equal salts are shared (VMware KB 2097593:
since 2014 each VM has its own, so that pages are shared within a VM alone).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from pyvirt.errors import InvalidTypeError, InvalidValueError

__all__ = ["PAGE_SIZE", "PageSharing", "page_ids", "share_pages"]

Ints = npt.NDArray[np.int64]
PAGE_SIZE = 4096


@dataclass(frozen=True, slots=True, eq=False)
class PageSharing:
    """What sharing equal pages does. Arrays have a number for each image.

    Attributes
    ----------
    pages : ndarray of int64
        All pages of each.
    shared : ndarray of int64
        Those that are equal to another that they may share with.
    zero : ndarray of int64
        Those that are zero.
    copies : int
        Machine pages that all shared pages take together.
    """

    pages: Ints
    shared: Ints
    zero: Ints
    copies: int

    @property
    def reclaimable(self) -> int:
        """Machine pages that sharing frees: shared ones less one copy of each content."""
        return int(self.shared.sum()) - self.copies

    @property
    def distinct(self) -> int:
        """Machine pages that are needed with sharing."""
        return int(self.pages.sum()) - self.reclaimable


def _as_words(image: Any, which: int) -> npt.NDArray[np.uint64]:
    """View an image as rows of 512 words, one for each page."""
    try:
        flat = np.asarray(image)
        if flat.dtype.kind not in "iu":  # bytes and the like
            flat = np.frombuffer(image, dtype=np.uint8)
        flat = np.ascontiguousarray(flat).reshape(-1).view(np.uint8)
    except (TypeError, ValueError, BufferError):
        raise InvalidTypeError(
            f"image {which} must be bytes, or an array of integers, not {type(image).__name__}"
        ) from None
    if flat.size % PAGE_SIZE:
        raise InvalidValueError(
            f"image {which} must be whole pages of {PAGE_SIZE:,} bytes, got {flat.size:,} bytes"
        )
    if flat.ctypes.data % 8:
        flat = flat.copy()
    words: npt.NDArray[np.uint64] = flat.view(np.uint64).reshape(-1, PAGE_SIZE // 8)
    return words


def page_ids(images: Sequence[Any]) -> list[Ints]:
    """Number the contents of pages: two pages have the same number exactly if they are equal.

    Parameters
    ----------
    images : sequence of bytes-like or array of int
        Memory of VMs, whole pages of 4 KiB.

    Returns
    -------
    list of ndarray of int64
        For each image a number for each page; 0 for pages of zeros, then in the order in which
        contents are first met.

    Raises
    ------
    InvalidTypeError, InvalidValueError
        An image is not bytes, or no whole pages.

    Examples
    --------
    >>> one, two = bytes(8192), bytes(4096) + b"x" * 4096
    >>> [ids.tolist() for ids in page_ids([one, two])]
    [[0, 0], [0, 1]]
    """
    from pyvirt.hostmem.kernels.hashing import hash_pages

    if isinstance(images, (bytes, bytearray, memoryview, np.ndarray)):
        raise InvalidTypeError("images must be a sequence of images, not one image")
    # A page of zeros before all others, so that it is the first content.
    nothing = np.zeros((1, PAGE_SIZE // 8), dtype=np.uint64)
    views = [nothing, *(_as_words(image, which) for which, image in enumerate(images))]
    bounds = np.cumsum([0, *map(len, views)])
    hashes = np.empty(bounds[-1], dtype=np.uint64)
    for words, (low, high) in zip(views, pairwise(bounds), strict=True):
        hash_pages(words, hashes[low:high])
    labels = _split(views, bounds, np.unique(hashes, return_inverse=True)[1].reshape(-1))
    # number contents as they are met
    _, first, place = np.unique(labels, return_index=True, return_inverse=True)
    number = np.empty(len(first), dtype=np.int64)
    number[np.argsort(first)] = np.arange(len(first))
    ids = number[place.reshape(-1)]
    return [ids[low:high] for low, high in pairwise(bounds[1:])]


def _split(views: list[npt.NDArray[np.uint64]], bounds: Ints, labels: Ints) -> Ints:
    """Compare each page with the first of its label; those that differ get labels of their own."""
    from pyvirt.hostmem.kernels.hashing import same_pages

    labels = labels.astype(np.int64)
    pending = np.arange(len(labels))
    following = int(labels.max()) + 1
    while pending.size:
        _, first, place = np.unique(labels[pending], return_index=True, return_inverse=True)
        leader = pending[first[place.reshape(-1)]]
        here = np.searchsorted(bounds, pending, side="right") - 1
        there = np.searchsorted(bounds, leader, side="right") - 1
        equal = np.ones(len(pending), dtype=np.bool_)
        to_compare = leader != pending
        for i, j in np.unique(np.stack([here, there])[:, to_compare], axis=1).T.tolist():
            rows = np.flatnonzero((here == i) & (there == j) & to_compare)
            same = np.empty(len(rows), dtype=np.bool_)
            same_pages(
                views[i], pending[rows] - bounds[i], views[j], leader[rows] - bounds[j], same
            )
            equal[rows] = same
        pending = pending[~equal]
        # one round for each content that has the hash of another: rare enough
        old, fresh = np.unique(labels[pending], return_inverse=True)
        labels[pending] = following + fresh.reshape(-1)
        following += len(old)
    return labels


def share_pages(images: Sequence[Any], salts: Sequence[int] | None = None) -> PageSharing:
    """Share the equal pages of memory images.

    Parameters
    ----------
    images : sequence of bytes-like or array of int
        Memory of VMs, whole pages of 4 KiB; or numbers from `page_ids`, one for each page, as
        one-dimensional arrays of int64.
    salts : sequence of int, optional
        One for each image; by default all are equal.

    Returns
    -------
    PageSharing

    Examples
    --------
    Two VMs that begin alike:

    >>> one, two = b"a" * 4096 + b"b" * 4096 + bytes(8192), b"a" * 4096 + b"c" * 4096
    >>> sharing = share_pages([one, two])
    >>> sharing.shared.tolist(), sharing.copies, sharing.reclaimable
    ([3, 1], 2, 2)
    >>> share_pages([one, two], salts=[1, 2]).shared.tolist()
    [2, 0]
    """
    given = list(images)
    numbered = [
        isinstance(image, np.ndarray) and image.dtype == np.int64 and image.ndim == 1
        for image in given
    ]
    ids: list[Ints] = given if given and all(numbered) else page_ids(given)
    group = np.zeros(len(ids), dtype=np.int64)
    if salts is not None:
        if len(salts) != len(ids):
            raise InvalidTypeError(f"salts must be {len(ids)} numbers, got {len(salts)}")
        group = np.unique(np.array(list(salts)), return_inverse=True)[1].reshape(-1)
    sizes = np.array([len(one) for one in ids], dtype=np.int64)
    flat = np.concatenate([np.empty(0, np.int64), *ids])
    owner = np.repeat(np.arange(len(ids)), sizes)
    contents = int(flat.max(initial=0)) + 1
    key = group[owner] * contents + flat
    _, place, count = np.unique(key, return_inverse=True, return_counts=True)
    several = count[place.reshape(-1)] > 1
    return PageSharing(
        pages=sizes,
        shared=np.bincount(owner[several], minlength=len(ids)).astype(np.int64),
        zero=np.bincount(owner[flat == 0], minlength=len(ids)).astype(np.int64),
        copies=int((count > 1).sum()),
    )
