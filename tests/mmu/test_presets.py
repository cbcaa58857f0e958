"""Presets: all can be built, every value has a source, and the page shows them."""

import importlib.util
from pathlib import Path

import pytest

from pyvirt.errors import InvalidTypeError, InvalidValueError
from pyvirt.mmu import presets
from pyvirt.mmu.geometry import Cache, Geometry, WalkCache

NAMES = [
    "champsim",
    "gem5",
    "ice-lake",
    "neoverse-n1",
    "reference",
    "sapphire-rapids",
    "skylake-sp",
    "zen2",
    "zen3",
    "zen4",
    "zen5",
]
SCRIPT = Path(__file__).parents[2] / "docs" / "presets_page.py"


def caches(geometry: Geometry) -> dict[str, Cache]:
    """All caches, by the field under which their sources are."""
    found = {f"tlbs[{array.name}]": array.cache for array in geometry.tlbs}
    for side in ("guest", "host"):
        walk: WalkCache | None = getattr(geometry, side)
        if walk is not None and walk.cache is not None:
            found[f"{side}.caches"] = walk.cache
        elif walk is not None:
            found |= {f"{side}.caches.{level}": cache for level, cache in walk.levels.items()}
    if geometry.nested_tlb is not None:
        found["nested_tlb"] = geometry.nested_tlb
    return found


def test_names():
    assert presets.names() == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_every_value_has_a_source(name: str):
    geometry = presets.load(name)
    assert geometry.name == name
    found = {source.field: source for source in presets.sources(name)}
    expected = {"inclusive": geometry.inclusive}
    for field, cache in caches(geometry).items():
        expected |= {f"{field}.entries": cache.entries, f"{field}.ways": cache.ways}
        if cache.ways > 1:
            expected[f"{field}.policy"] = cache.policy
        if cache.sets > 1:
            expected[f"{field}.hash"] = cache.hash
    for array in geometry.tlbs:
        expected[f"tlbs[{array.name}].pages"] = list(array.pages)
        expected[f"tlbs[{array.name}].serves"] = list(array.serves)
        if array.smash:
            expected[f"tlbs[{array.name}].smash"] = True
    for side in ("guest", "host"):
        if walk := getattr(geometry, side):
            expected[f"{side}.kind"] = walk.kind
            if side == "guest":
                expected.setdefault("guest_points_to", geometry.guest_points_to)
    if name == "champsim":  # it has no nested paging
        del expected["guest_points_to"]
    assert {field: source.value for field, source in found.items()} == expected
    for source in found.values():
        # A key of the file's table of sources that is missing there would be left as it is.
        assert " " in source.source, source


def test_a_preset_is_read_once():
    assert presets.load("Zen2") is presets.load("zen2")
    assert presets.sources("zen2") is not presets.sources("zen2")


def test_the_reference():
    reference = presets.load("reference")
    l1, l2 = reference.tlbs
    assert (l1.level, l1.cache, l1.pages) == (1, Cache(64, 4), ("4K",))
    assert (l2.level, l2.cache, l2.pages) == (2, Cache(1536, 12), ("4K",))
    split = WalkCache("split", {4: Cache(4), 3: Cache(4), 2: Cache(32, 4)})
    assert reference.guest == reference.host == split
    assert reference.nested_tlb == Cache(64)
    assert not any(source.recalled for source in presets.sources("reference"))


def test_what_is_special():
    skylake = {array.name: array for array in presets.load("skylake-sp").tlbs}
    assert skylake["STLB"].cache.hash == "xor-7"
    banks = [array for array in presets.load("ice-lake").tlbs if array.level == 2]
    assert [(b.cache.entries, b.cache.ways, b.pages) for b in banks] == [
        (1024, 8, ("4K", "2M")),
        (1024, 8, ("4K", "1G")),
    ]
    (l2,) = (array for array in presets.load("zen2").tlbs if array.name == "L2 DTLB")
    assert l2.smash
    assert "1G" not in l2.pages
    champsim = presets.load("champsim").guest
    assert champsim is not None
    assert {level: (c.sets, c.ways) for level, c in champsim.levels.items()} == {
        5: (1, 2),
        4: (1, 4),
        3: (2, 4),
        2: (4, 8),
    }


@pytest.mark.parametrize("function", [presets.load, presets.sources, presets.read])
def test_unknown_names(function):
    with pytest.raises(InvalidValueError, match=r"no preset is named 'zen22'; nearest: .*zen2"):
        function("zen22")
    with pytest.raises(InvalidValueError, match=r"nearest: skylake-sp"):
        function("skylake")
    with pytest.raises(InvalidValueError, match=r"nearest: champsim, gem5, .*zen5"):
        function("???")
    with pytest.raises(InvalidValueError, match="no preset"):
        function("../cost_data/sagepte")
    with pytest.raises(InvalidTypeError, match="name must be"):
        function(4)


@pytest.mark.skipif(not SCRIPT.exists(), reason="no documentation beside the tests")
def test_the_page_agrees_with_the_data():
    spec = importlib.util.spec_from_file_location("presets_page", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.PAGE.read_text(encoding="utf-8") == module.page(), (
        "run `python docs/presets_page.py`"
    )
