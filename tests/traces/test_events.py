"""The record and its operations, for Python and for the core; the summary of a trace."""

import re
from pathlib import Path

import numpy as np
import pytest

import pyvirt
from pyvirt.errors import InvalidTypeError, InvalidValueError
from pyvirt.traces import EVENT_DTYPE, Op, accesses, is_access, summarise
from pyvirt.traces.summary import Distinct


def test_record():
    assert EVENT_DTYPE.itemsize == 24
    assert [EVENT_DTYPE.fields[name][1] for name in EVENT_DTYPE.names] == [0, 1, 2, 4, 8, 16]


def test_core_has_the_same_operations():
    declared = Path(pyvirt.__file__).parent / "_core" / "events.pxd"
    numbers = re.findall(r"EVENT_([A-Z0-9_]+) = (\d+)", declared.read_text())
    assert {name: int(number) for name, number in numbers} == {op.name: int(op) for op in Op}


def test_accesses():
    events = accesses([1, 2], [Op.LOAD, Op.FETCH], 8, vcpu=3, user=[True, False])
    assert events.tolist() == [(1, 8, 3, 1, 1, 0), (3, 8, 3, 0, 2, 0)]
    with pytest.raises(InvalidValueError, match="size must be in"):
        accesses([1], size=256)
    with pytest.raises(InvalidValueError, match="vcpu must be in"):
        accesses([1], vcpu=-1)
    with pytest.raises(InvalidTypeError, match="op must be integers"):
        accesses([1], op="LOAD")
    with pytest.raises(InvalidValueError, match="addresses"):
        accesses([-1])
    all_ops = np.zeros(256, EVENT_DTYPE)
    all_ops["op"] = np.arange(256)
    assert np.flatnonzero(is_access(all_ops)).tolist() == [1, 2, 3, 4]


def test_summary():
    top = (1 << 64) - 1
    events = accesses(
        [0x1FFF, 0x1000, 0x200000, top], [1, 2, 3, 4], [2, 1, 0, 8], vcpu=[0, 2, 0, 0]
    )
    events["arg"] = [1, 0, 1, 0]
    other = accesses([0x7000])
    other["op"], other["vcpu"] = Op.INVLPG, 9
    found = summarise([events, other, events[:0]])
    assert found.counts == {"LOAD": 1, "STORE": 1, "FETCH": 1, "MODIFY": 1, "INVLPG": 1}
    assert (found.events, found.accesses, found.user) == (5, 4, 2)
    assert (found.lowest, found.highest, found.vcpus) == (0x1000, top, [0, 2, 9])
    assert found.pages == {"4K": 4, "2M": 3}
    assert found.pages_exact == {"4K": True, "2M": True}
    empty = summarise(events[:0])
    assert (empty.events, empty.lowest, empty.pages) == (0, None, {"4K": 0, "2M": 0})


def test_distinct_beyond_its_memory():
    rng = np.random.default_rng(4)
    values = rng.integers(0, 1 << 40, 300_000, np.uint64)
    true = len(np.unique(values))
    for kept, exact in ((1 << 20, True), (1 << 14, False)):
        distinct = Distinct(kept)
        for part in np.array_split(values, 7):
            distinct.add(part)
            distinct.add(part)
        assert distinct.exact is exact
        assert abs(distinct.count / true - 1) < (0 if exact else 4 / kept**0.5) + 1e-12
