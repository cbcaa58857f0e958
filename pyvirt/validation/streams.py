"""The seeded address streams of the TLB experiments, as their golden figures define them.

Five draws from one generator, in a fixed order: addresses of Zipf-distributed pages of four
footprints, then uniform ones. NumPy may change its streams with a version; each scored stream
therefore carries a digest of its first addresses, and `changed` says when it is not the one
that the figures belong to.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

__all__ = ["COUNT", "GUARD", "SCORED", "changed", "streams", "uniform", "zipf"]

#: Seed and length of the streams that have golden figures.
SEED, COUNT = 12345, 10_000_000
#: Pages of each Zipf stream, in the order of drawing; the uniform one comes last.
FOOTPRINTS = {"zipf48": 48, "zipf1k": 1 << 10, "zipf64k": 1 << 16, "zipf16M": 1 << 24}
UNIFORM = "uniform"
UNIFORM_PAGES = 1 << 24
#: The streams that have figures. zipf16M only moves the generator on.
SCORED = ("zipf48", "zipf1k", "zipf64k", UNIFORM)

#: How many addresses the guard looks at.
GUARD = 64
_DIGESTS = {
    "zipf48": "3ccf091d17c9342e",
    "zipf1k": "3079fd8927f94843",
    "zipf64k": "e5a3a27356c1c1b4",
    UNIFORM: "43e58a5365c3262a",
}

U64 = npt.NDArray[np.uint64]


def _addresses(pages: npt.NDArray[np.int64], rng: np.random.Generator) -> U64:
    """Give an 8-byte aligned address in each page."""
    offset = rng.integers(0, 512, len(pages)) << 3
    return (pages << 12 | offset).view(np.uint64)


def zipf(rng: np.random.Generator, pages: int, count: int) -> U64:
    """Draw addresses whose pages are Zipf-distributed (exponent 1) in random order.

    Parameters
    ----------
    rng : Generator
        Moves on by `count` numbers, a permutation of `pages` and `count` offsets.
    pages, count : int
        Footprint, and how many addresses.
    """
    weight = 1 / np.arange(1, pages + 1)
    cumulated = np.cumsum(weight) / weight.sum()
    rank = np.searchsorted(cumulated, rng.random(count))
    return _addresses(rng.permutation(pages)[rank], rng)


def uniform(rng: np.random.Generator, pages: int, count: int) -> U64:
    """Draw addresses of uniformly distributed pages."""
    return _addresses(rng.integers(0, pages, count), rng)


def streams(count: int = COUNT, seed: int = SEED) -> Iterator[tuple[str, U64]]:
    """Draw the scored streams one after the other.

    Parameters
    ----------
    count, seed : int
        The golden figures belong to the defaults.

    Yields
    ------
    (str, ndarray of uint64)
        Name and addresses.
    """
    rng = np.random.default_rng(seed)
    for name, pages in FOOTPRINTS.items():
        if name in SCORED:
            yield name, zipf(rng, pages, count)
        else:
            rng.random(count)
            rng.permutation(pages)
            rng.integers(0, 512, count)
    yield UNIFORM, uniform(rng, UNIFORM_PAGES, count)


def digest(addresses: U64) -> str:
    """Name the beginning of a stream."""
    head = np.ascontiguousarray(addresses[:GUARD], dtype="<u8")
    return hashlib.sha256(head.tobytes()).hexdigest()[:16]


def changed(name: str, addresses: U64) -> bool:
    """Tell whether a stream is not the one that its golden figures were counted on."""
    return digest(addresses) != _DIGESTS[name]
