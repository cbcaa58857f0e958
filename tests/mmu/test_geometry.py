"""Geometries: what can be built, what is refused and how, and the way to TOML and back."""

import copy
import pickle
import tomllib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyvirt.errors import InvalidTypeError, InvalidValueError
from pyvirt.mmu.geometry import KINDS, PAGES, POLICIES, Cache, Geometry, TlbArray, WalkCache

L1 = TlbArray("L1", 1, Cache(64, 4))
L2 = TlbArray("L2", 2, Cache(1536, 12, hash="xor-7"), ("4K", "2M"), ("load",), True)
FULL = Geometry(
    "full",
    (L1, L2),
    WalkCache("split", {2: Cache(32, 4), 5: Cache(2)}),
    "guest",
    WalkCache("path", Cache(16, policy="fifo")),
    Cache(64, policy="random"),
    True,
)


def table(value) -> str:
    """Write a value the way TOML has it in one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {table(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(table, value)) + "]"
    return str(value).lower() if isinstance(value, bool) else repr(value).replace("'", '"')


def test_sets_and_full_associativity():
    assert Cache(1536, 12).sets == 128
    assert Cache(2040, 12).sets == 170  # any number of sets
    assert (Cache(48).ways, Cache(48).sets) == (48, 1)
    assert Cache(48) == Cache(48, 48)


def test_integers_of_any_kind_become_int():
    cache = Cache(np.uint16(64), np.int64(4))
    assert type(cache.entries) is int
    assert type(cache.ways) is int


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"entries": 0}, "entries must be an integer from 1 to 1048576, got 0"),
        ({"entries": (1 << 20) + 1, "ways": 1}, "from 1 to 1048576, got 1048577"),
        ({"entries": 10**6000}, "from 1 to 1048576"),
        ({"entries": 64, "ways": -1}, "ways must be an integer from 0 to 4096, got -1"),
        ({"entries": 8192, "ways": 8192}, "ways must be .* 4096, got 8192"),
        ({"entries": 8192}, "entries=8192 fully associative: at most 4096"),
        ({"entries": 64, "ways": 12}, "ways=12 does not divide entries=64"),
        ({"entries": 64, "policy": "mru"}, "policy must be one of lru, .*, got 'mru'"),
        ({"entries": 96, "ways": 6, "policy": "tree-plru"}, "power of two of ways, got ways=6"),
        ({"entries": 128, "policy": "tree-plru"}, "at most 64 ways, got ways=128"),
        ({"entries": 65, "policy": "bit-plru"}, "at most 64 ways, got ways=65"),
        ({"entries": 64, "ways": 4, "hash": "xor"}, "hash must be .*linear.*, got 'xor'"),
        ({"entries": 64, "ways": 4, "hash": "xor-0"}, "hash must be"),
        ({"entries": 64, "ways": 4, "hash": "xor-5"}, r"needs 2\*\*5 sets; .* are 16"),
        ({"entries": 96, "ways": 4, "hash": "xor-5"}, r"needs 2\*\*5 sets; .* are 24"),
    ],
)
def test_impossible_caches(arguments: dict, words: str):
    with pytest.raises(InvalidValueError, match=words):
        Cache(**arguments)


@pytest.mark.parametrize("entries", [True, 64.0, "64", None])
def test_entries_of_another_type(entries):
    with pytest.raises(InvalidTypeError, match="entries must be an integer"):
        Cache(entries)


@pytest.mark.parametrize("field", ["policy", "hash"])
def test_text_of_another_type(field: str):
    with pytest.raises(InvalidTypeError, match=f"{field} must be"):
        Cache(64, **{field: 3})


def test_pages_and_kinds_are_put_in_order():
    array = TlbArray("a", 1, Cache(4), ["1G", "4K"], ["store", "fetch"])
    assert array.pages == ("4K", "1G")
    assert array.serves == ("fetch", "store")


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"name": ""}, InvalidValueError, "name must not be empty"),
        ({"name": 3}, InvalidTypeError, "name must be text"),
        ({"level": 0}, InvalidValueError, "level must be an integer from 1 to 7, got 0"),
        ({"level": 8}, InvalidValueError, "level must be an integer from 1 to 7, got 8"),
        ({"cache": 64}, InvalidTypeError, "cache must be a Cache, got 64"),
        ({"pages": ()}, InvalidValueError, "pages must name at least one of 4K, 2M, 1G"),
        ({"pages": "4K"}, InvalidTypeError, "pages must be a sequence"),
        ({"pages": ("4M",)}, InvalidValueError, "element of pages must be one of .*, got '4M'"),
        ({"pages": ("4K", "4K")}, InvalidValueError, "pages names one more than once"),
        ({"pages": (4096,)}, InvalidTypeError, "element of pages"),
        ({"serves": ()}, InvalidValueError, "serves must name at least one of fetch"),
        ({"serves": ("read",)}, InvalidValueError, "got 'read'"),
        ({"serves": None}, InvalidTypeError, "serves must be a sequence"),
        ({"smash": 1}, InvalidTypeError, "smash must be True or False, got 1"),
    ],
)
def test_impossible_arrays(changes: dict, error: type, words: str):
    with pytest.raises(error, match=words):
        TlbArray(**{"name": "a", "level": 1, "cache": Cache(4), **changes})


@pytest.mark.parametrize(
    ("kind", "caches", "error", "words"),
    [
        ("merged", Cache(4), InvalidValueError, "kind must be one of split, page-table, path"),
        ("split", Cache(4), InvalidTypeError, "mapping of level to Cache"),
        ("split", {}, InvalidValueError, "at least one of levels 2 to 5"),
        ("split", {1: Cache(4)}, InvalidValueError, "from 2 to 5, got 1"),
        ("split", {6: Cache(4)}, InvalidValueError, "from 2 to 5, got 6"),
        ("split", {"2": Cache(4)}, InvalidTypeError, "level of a split cache"),
        ("split", {2: 4}, InvalidTypeError, r"caches\[2\] must be a Cache"),
        ("page-table", {2: Cache(4)}, InvalidTypeError, "must be a Cache"),
        ("path", Cache(8, 4), InvalidValueError, "must be fully associative, got entries=8 with"),
    ],
)
def test_impossible_walk_caches(kind, caches, error: type, words: str):
    with pytest.raises(error, match=words):
        WalkCache(kind, caches)


def test_split_caches_cannot_change():
    given_caches = {3: Cache(4), 2: Cache(32, 4)}
    walk = WalkCache("split", given_caches)
    given_caches[4] = Cache(1)
    assert dict(walk.levels) == {2: Cache(32, 4), 3: Cache(4)}
    assert list(walk.caches) == [2, 3]
    assert walk.caches[3] == Cache(4)
    assert walk.cache is None
    assert walk == WalkCache("split", {2: Cache(32, 4), 3: Cache(4)})
    with pytest.raises(KeyError):
        walk.caches[4]
    with pytest.raises(TypeError):
        walk.caches[2] = Cache(1)


def test_unified_walk_cache():
    walk = WalkCache("page-table", Cache(64, 8))
    assert walk.cache == Cache(64, 8)
    assert dict(walk.levels) == {}


def some(name: str, level: int, *serves: str) -> TlbArray:
    return TlbArray(name, level, Cache(4), serves=serves or KINDS)


@pytest.mark.parametrize(
    ("tlbs", "words"),
    [
        ([some("b", 2)], "levels of tlbs must follow one another from 1, got 2"),
        ([some("a", 1), some("c", 3)], "from 1, got 1, 3"),
        ([some("a", 1), some("a", 2)], "more than one array named 'a'"),
        ([some("a", 1, "load")], "no array of level 1 in tlbs serves fetch, store"),
        ([some("a", 1, "load", "fetch"), some("b", 2)], "serves store"),
        ([some(str(i), 1) for i in range(17)], "17 arrays; at most 16"),
    ],
)
def test_impossible_levels(tlbs: list, words: str):
    with pytest.raises(InvalidValueError, match=words):
        Geometry("g", tlbs)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"name": None}, InvalidTypeError, "name must be"),
        ({"tlbs": L1}, InvalidTypeError, "tlbs must be a sequence of TlbArray"),
        ({"tlbs": [Cache(4)]}, InvalidTypeError, "element of tlbs must be a TlbArray"),
        ({"guest": Cache(4)}, InvalidTypeError, "guest must be a WalkCache"),
        ({"host": 4}, InvalidTypeError, "host must be a WalkCache"),
        ({"nested_tlb": L1}, InvalidTypeError, "nested_tlb must be a Cache"),
        ({"guest_points_to": "va"}, InvalidValueError, "one of host, guest, got 'va'"),
        ({"inclusive": "yes"}, InvalidTypeError, "inclusive must be True or False"),
    ],
)
def test_impossible_geometries(arguments: dict, error: type, words: str):
    with pytest.raises(error, match=words):
        Geometry(**{"name": "g", **arguments})


def test_none_caches_nothing():
    none = Geometry.none()
    assert (none.tlbs, none.guest, none.host, none.nested_tlb) == ((), None, None, None)
    assert none.levels == 0
    assert none.to_dict() == {"name": "none"}


@pytest.mark.parametrize("geometry", [Geometry.none(), Geometry("one", [L1]), FULL])
def test_there_and_back(geometry: Geometry):
    data = tomllib.loads("g = " + table(geometry.to_dict()))["g"]
    assert Geometry.from_dict(data) == geometry
    assert Geometry.from_dict(geometry.to_dict()) == geometry
    for twin in (pickle.loads(pickle.dumps(geometry)), copy.deepcopy(geometry)):
        assert twin == geometry
        assert hash(twin) == hash(geometry)


def test_frozen():
    with pytest.raises(AttributeError):
        L1.level = 2
    assert FULL.levels == 2
    assert len({FULL, Geometry.from_dict(FULL.to_dict()), Geometry.none()}) == 2


@pytest.mark.parametrize(
    ("data", "error", "words"),
    [
        ({}, InvalidValueError, "Geometry needs name"),
        ([], InvalidTypeError, "Geometry must be a table"),
        ({"name": "g", "tlb": []}, InvalidValueError, "has no 'tlb'; did you mean 'tlbs'"),
        ({"name": "g", "zzz": 1}, InvalidValueError, "has no 'zzz'; it has name, tlbs"),
        ({"name": "g", "tlbs": [{"name": "a"}]}, InvalidValueError, r"tlbs\[0\]: .* needs level"),
        (
            {"name": "g", "tlbs": [{"name": "a", "level": 1, "cache": {"entries": 3, "ways": 2}}]},
            InvalidValueError,
            r"tlbs\[0\]: cache: ways=2 does not divide",
        ),
        ({"name": "g", "tlbs": 3}, InvalidTypeError, "tlbs must be a sequence"),
        (
            {"name": "g", "guest": {"kind": "split", "caches": {"x": {"entries": 3}}}},
            InvalidTypeError,
            "guest: level of a split cache",
        ),
        (
            {"name": "g", "guest": {"kind": "split", "caches": 3}},
            InvalidTypeError,
            "guest: .* mapping of level",
        ),
        ({"name": "g", "nested_tlb": 64}, InvalidTypeError, "nested_tlb: Cache must be a table"),
    ],
)
def test_tables_that_say_nothing_sensible(data, error: type, words: str):
    with pytest.raises(error, match=words):
        Geometry.from_dict(data)


@given(
    ways=st.integers(1, 80),
    sets=st.integers(1, 300),
    policy=st.sampled_from(POLICIES),
    hash=st.sampled_from(["linear", *(f"xor-{n}" for n in range(1, 9))]),
)
def test_a_cache_is_built_or_refused(ways: int, sets: int, policy: str, hash: str):
    possible = hash == "linear" or sets == 1 << int(hash[4:])
    possible &= policy != "tree-plru" or (ways & (ways - 1) == 0 and ways <= 64)
    possible &= policy != "bit-plru" or ways <= 64
    if possible:
        cache = Cache(ways * sets, ways, policy, hash)
        assert (cache.ways, cache.sets) == (ways, sets)
        assert Cache.from_dict(cache.to_dict()) == cache
    else:
        with pytest.raises(InvalidValueError):
            Cache(ways * sets, ways, policy, hash)


def test_constants():
    assert PAGES == ("4K", "2M", "1G")
    assert KINDS == ("fetch", "load", "store")
