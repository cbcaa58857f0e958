"""A8 as tests: one for each cell of the table, for the engine and for the plain model."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest

from oracle.slowmmu import SlowMMU
from pyvirt.mmu.mmu import MMU
from pyvirt.validation.invalidation import COLUMNS, OPERATIONS, PHYSICAL, cells, examine, groups

CELLS = list(cells())
ENTRY_DTYPE = [
    ("structure", "U16"),
    ("set", "u4"),
    ("way", "u4"),
    ("page", "u8"),
    ("size", "u1"),
    ("vpid", "u4"),
    ("pcid", "u4"),
    ("global", "?"),
    ("ep4ta", "u8"),
    ("value", "u8"),
]


class Model(SlowMMU):
    """The plain model with `entries` as the engine gives them."""

    def entries(self, core: int = 0) -> Any:
        rows = [
            (*row[:6], max(row[6], 0), row[7], max(row[8], 0), row[9])
            for row in sorted(super().entries(core))
        ]
        return np.array(rows, dtype=ENTRY_DTYPE)


MAKERS = {"engine": MMU, "model": Model}


@cache
def outcomes(maker: str, precision: str) -> dict[str, bool | str]:
    """Whether each cell was dropped, by its text; or what was wrong with the run."""
    found: dict[str, bool | str] = {}
    for some in groups():
        try:
            found |= {
                str(cell): dropped for cell, dropped in examine(some, precision, MAKERS[maker])
            }
        except (AssertionError, ValueError) as error:
            found |= {str(cell): str(error) for cell in some}
    return found


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_exact(maker: str, cell):
    assert outcomes(maker, "exact")[str(cell)] is cell.dropped


@pytest.mark.parametrize("maker", MAKERS)
def test_conservative_drops_at_least_as_much(maker: str):
    exact, conservative = outcomes(maker, "exact"), outcomes(maker, "conservative")
    assert {*exact.values(), *conservative.values()} == {False, True}
    kept = [cell for cell, dropped in exact.items() if dropped and not conservative[cell]]
    assert not kept
    assert sum(conservative.values()) > sum(exact.values())


@pytest.mark.parametrize("precision", ["exact", "conservative"])
def test_engine_and_model_agree_on_every_cell(precision: str):
    assert outcomes("engine", precision) == outcomes("model", precision)


def test_the_table_is_whole():
    assert len(set(map(str, CELLS))) == len(CELLS)
    for operation in OPERATIONS:
        assert len(operation.row.replace(" ", "")) == len(COLUMNS)
        assert len(operation.physical.replace(" ", "")) == len(PHYSICAL)
    names = " ".join(operation.name for operation in OPERATIONS)
    for word in ("INVLPG", "MOV CR3", "MOV CR4", "MOV CR0", "page fault", "EPT violation"):
        assert word in names
    for kind in range(4):
        assert f"INVPCID {kind}" in names
        assert f"INVVPID {kind}" in names
    assert {cell.kind for cell in CELLS} == {"linear", "combined", "guest-physical"}
    # Each column is dropped by something and left by something.
    for kind in ("linear", "combined", "guest-physical"):
        for part, relation in PHYSICAL if kind == "guest-physical" else COLUMNS:
            if kind == "linear" and relation == "other EP4TA":
                continue
            seen = {
                c.dropped for c in CELLS if (c.kind, c.part, c.relation) == (kind, part, relation)
            }
            assert seen == {True, False}, (kind, part, relation)
