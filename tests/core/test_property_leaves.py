"""Enumerations: every leaf of small tables, found by the slow walker too."""

import numpy as np
import pytest

from core.compare import pair
from core.strategies import Case, cases, quick_and_slow
from oracle.slowwalk import Found, SlowWalk, flags_of
from pyvirt._core.leaves import enumerate_leaves
from pyvirt.errors import LimitError
from pyvirt.mmu.runs import merge_runs

LIMIT = 3000
PIECES = 1 << 13


def row_of(slow: SlowWalk, va: int, leaf: Found) -> tuple:
    """A leaf of one dimension as `AddressSpace.leaves` lists it."""
    return va, leaf.own, 1 << leaf.shift, leaf.entry, leaf.shift, flags_of(slow.dims[0], leaf)


def check_leaves(case: Case) -> None:
    """All leaves, in order, and a limit that stops where it says."""
    slow, fast, memory = pair(case)
    version = memory.version
    try:
        leaves = slow.leaves(LIMIT)
    except OverflowError:
        with pytest.raises(LimitError):
            fast.leaves(limit=LIMIT, table_limit=LIMIT)
        return
    expected = [row_of(slow, va, leaf) for va, leaf in leaves]
    found = fast.leaves(limit=LIMIT, table_limit=LIMIT)
    names = ("va", "pa", "size", "entry", "page_shift", "flags")
    assert list(zip(*(found[name].tolist() for name in names), strict=True)) == expected
    assert memory.version == version
    if expected:
        assert len(fast.leaves(limit=len(expected))) == len(expected)
        with pytest.raises(LimitError):
            fast.leaves(limit=len(expected) - 1)
    if slow.tables > 1:
        assert len(fast.leaves(table_limit=slow.tables)) == len(expected)
        with pytest.raises(LimitError):
            fast.leaves(table_limit=slow.tables - 1)
    check_runs(found, fast.leaves(merge=True), ("pa",))


def check_runs(pieces: np.ndarray, runs: np.ndarray, linear: tuple[str, ...]) -> None:
    """Merged runs say the same as the pieces, and none could be longer."""
    expected: list[dict] = []
    for piece in pieces:
        row = {name: int(piece[name]) for name in pieces.dtype.names}
        mapped = not row.get("code")
        last = expected[-1] if expected else None
        if last and all(
            row[name] == last[name] + last["size"]
            for name in ("va", *linear)
            if name != "pa" or mapped
        ):
            names = {"page_shift", "flags", "nested_shift", "code"} & set(row)
            if all(row[name] == last[name] for name in names):
                last["size"] += row["size"]
                continue
        expected.append(row)
    assert [{name: int(run[name]) for name in runs.dtype.names} for run in runs] == expected


def check_nested(case: Case) -> None:
    """Pieces cover each guest leaf once, with what the nested walk says of each."""
    slow, fast, memory = pair(case)
    version = memory.version
    try:
        leaves = slow.leaves(LIMIT)
    except OverflowError:
        with pytest.raises(LimitError):
            enumerate_leaves(fast, LIMIT, LIMIT)
        return
    try:
        pieces = enumerate_leaves(fast, PIECES, 1 << 20, faults=True)
    except LimitError:
        assert any(leaf.shift > 20 for _, leaf in leaves) or len(leaves) > PIECES
        return
    assert memory.version == version
    good = enumerate_leaves(fast, PIECES, 1 << 20)
    assert good.tolist() == pieces[pieces["code"] == 0].tolist()
    at = 0
    for va, leaf in leaves:
        end = va + (1 << leaf.shift)
        while va < end:  # each leaf is cut into pieces without a gap
            piece = {name: int(pieces[name][at]) for name in pieces.dtype.names}
            check_piece(slow, leaf, va, piece, case)
            va, at = va + piece["size"], at + 1
        assert va == end
    assert at == len(pieces)
    check_runs(pieces, merge_runs(pieces), ("pa", "gpa"))


def check_piece(slow: SlowWalk, leaf: Found, va: int, piece: dict, case: Case) -> None:
    """One piece against the slow walker, at its ends and somewhere inside."""
    start = va & (1 << leaf.shift) - 1
    assert (piece["va"], piece["gpa"]) == (va, leaf.own + start)
    assert (piece["entry"], piece["page_shift"]) == (leaf.entry, leaf.shift)
    for inside in {0, piece["size"] - 1, case.tape.number(4) % piece["size"]}:
        outer = slow.final(leaf, start + inside)
        if isinstance(outer, int):
            assert (piece["code"], piece["pa"], piece["nested_shift"]) == (outer, 0, 0)
            assert piece["flags"] & 0xFF == flags_of(slow.dims[0], leaf)
            continue
        flags = flags_of(slow.dims[0], leaf) | (flags_of(slow.dims[1], outer) & 15) << 8
        assert (piece["code"], piece["flags"]) == (0, flags)
        assert (piece["pa"] + inside, piece["nested_shift"]) == (outer.pa, outer.shift)
        smallest = leaf.shift
        while outer:
            smallest, outer = min(smallest, outer.shift), outer.out
        assert piece["size"] == 1 << smallest


test_garbage, test_garbage_slow = quick_and_slow(check_leaves, cases(1, "garbage"), 150, 1500)
test_built, test_built_slow = quick_and_slow(check_leaves, cases(1, "built"), 150, 2000)
SMALL = cases(2, "built", largest=21)
test_nested_built, test_nested_built_slow = quick_and_slow(check_nested, SMALL, 60, 1000)
NESTED = cases(2, "garbage")
test_nested_garbage, test_nested_garbage_slow = quick_and_slow(check_nested, NESTED, 40, 500)
THREE = cases(3, "built", largest=21, damage=False)
test_three, test_three_slow = quick_and_slow(check_nested, THREE, 20, 200)
