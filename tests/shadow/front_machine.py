"""Processors for the tests: geometries in which much is evicted, or nothing is kept at all."""

from __future__ import annotations

from pyvirt.mmu.geometry import Cache, Geometry, TlbArray, WalkCache

SIZES = ("4K", "2M", "1G")
TINY = Geometry(
    "tiny",
    (TlbArray("L1", 1, Cache(2), SIZES), TlbArray("L2", 2, Cache(8, 2, "random"), SIZES)),
    WalkCache("split", {2: Cache(2), 3: Cache(1)}),
    "host",
    WalkCache("split", {2: Cache(2), 4: Cache(1)}),
    Cache(4, 2),
    True,
)
PATHS = Geometry(
    "paths",
    (TlbArray("all", 1, Cache(4), ("4K",), smash=True),),
    WalkCache("path", Cache(4)),
    "guest",
    WalkCache("path", Cache(2)),
)
BY_ADDRESS = Geometry(
    "by address",
    (TlbArray("all", 1, Cache(16, 4), SIZES),),
    WalkCache("page-table", Cache(8, 2)),
    "host",
    WalkCache("page-table", Cache(4)),
    Cache(2),
)
#: Walk caches alone: every access walks.
WALKS = Geometry(
    "walks",
    (),
    WalkCache("split", {2: Cache(4), 3: Cache(4), 4: Cache(4)}),
    "host",
    WalkCache("split", {2: Cache(4), 3: Cache(4), 4: Cache(4)}),
    Cache(16),
)
PROCESSORS = ["reference", "zen2", TINY, PATHS, BY_ADDRESS, WALKS, Geometry.none()]


def name_of(processor: object) -> str:
    """Name a case of a test."""
    return getattr(processor, "name", None) or str(processor)
