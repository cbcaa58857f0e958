"""Real tables: every page through the MMU is where the address space says it is."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

import pyvirt as pv
from pyvirt.mmu.memory import PhysicalMemory
from pyvirt.validation import Context
from pyvirt.validation.datasets import find_sets

CARRIED = Path(__file__).parents[1] / "data"
FORMATS = {2: "x86-32", 3: "pae", 4: "x86-64", 5: "x86-64"}
PRESETS = ("reference", "skylake-sp", "zen2")


def sets(data: Path) -> list:
    return find_sets(Context(data))


def folders() -> list:
    found = [pytest.param(CARRIED, id="carried")]
    name = os.environ.get("PYVIRT_DATA")
    if name and Path(name).is_dir():
        found.append(pytest.param(Path(name), id="measured"))
    return found


def memory_of(image_set) -> PhysicalMemory | None:
    """A memory of its own; the MMU may write A and D bits into it."""
    path = image_set.path.with_name(image_set.facts["image"])
    return PhysicalMemory.open(path, size=image_set.number("ram_bytes")) if path.exists() else None


def pages(leaves) -> np.ndarray:
    """First, middle and last byte of each leaf."""
    va, size = leaves["va"].astype(np.uint64), leaves["size"].astype(np.uint64)
    return np.concatenate([va, va + size // np.uint64(2), va + size - np.uint64(1)])


def compare(mmu: pv.MMU, space, vas: np.ndarray) -> None:
    """Three kinds of access in two orders, cold and warm, at both privilege levels."""
    orders = (vas, vas[np.random.default_rng(1).permutation(len(vas))], np.sort(vas))
    for user in (False, True):
        for access in "rwx":
            for order in orders:
                want = space.translate(order, access, user)
                got = mmu.translate(order, access, user)
                ok = np.asarray(want.code) == 0
                kind = np.asarray(got.code) & 15
                assert np.array_equal(kind != 0, ~ok)
                assert np.array_equal(got.pa[ok], want.pa[ok])
                assert np.array_equal(got.code[~ok], want.code[~ok])


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("data", folders())
def test_native(data: Path, preset: str):
    seen = 0
    for image_set in sets(data):
        if not image_set.contexts:
            continue
        memory = memory_of(image_set)
        if memory is None:
            continue
        for entry in image_set.contexts[:2]:
            options = {
                "guest_format": FORMATS[entry.levels],
                "guest_levels": entry.levels,
                **entry.registers,
            }
            space = pv.AddressSpace(
                memory,
                entry.cr3,
                levels=entry.levels,
                format=FORMATS[entry.levels],
                **entry.registers,
            )
            mmu = pv.MMU("native", memory, cr3=entry.cr3, tlb=preset, set_ad=False, **options)
            vas = pages(space.leaves())
            seen += len(vas)
            compare(mmu, space, vas)
    assert seen


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("data", folders())
def test_nested(data: Path, preset: str):
    seen = 0
    for image_set in sets(data):
        if not image_set.nested or image_set.shadow:
            continue
        memory = memory_of(image_set)
        if memory is None:
            continue
        roots = {"guest_cr3": image_set.number("guest_cr3")}
        roots["nested_root"] = image_set.number("host_root")
        levels = image_set.number("guest_levels", 4), image_set.number("host_levels", 4)
        form = "ept" if image_set.facts.get("mode") == "ept" else "npt"
        space = pv.NestedAddressSpace(
            memory,
            **roots,
            nested_format=form,
            guest_levels=levels[0],
            nested_levels=levels[1],
            pa_width=48,
        )
        mmu = pv.MMU(
            "nested",
            memory,
            cr3=roots["guest_cr3"],
            nested_root=roots["nested_root"],
            nested_format=form,
            guest_levels=levels[0],
            nested_levels=levels[1],
            pa_width=48,
            tlb=preset,
            set_ad=False,
        )
        vas = pages(space.leaves(faults=True))
        seen += len(vas)
        compare(mmu, space, vas)
    assert seen


def test_over_a_space():
    """The MMU of a space asks the same tables."""
    for image_set in sets(CARRIED):
        memory = memory_of(image_set)
        for entry in image_set.contexts[:1]:
            space = pv.AddressSpace(
                memory, entry.cr3, levels=entry.levels, format=FORMATS[entry.levels]
            )
            compare(pv.MMU.over(space, set_ad=False), space, pages(space.leaves())[:2000])
