"""Translation overhead: measured on a stream, by mode; closed forms, caching, bad input."""

import numpy as np
import pytest

from pyvirt import traces
from pyvirt.errors import InvalidTypeError, InvalidValueError
from pyvirt.machine import translation
from pyvirt.machine.modes import MonitorMode
from pyvirt.machine.streams import Stream
from pyvirt.machine.techniques import EventCosts
from pyvirt.machine.translation import measure
from pyvirt.mmu.costs import CostModel

BT, HV, HWMMU, PV = MonitorMode
MIB = 1 << 20
UNIFORM = Stream("uniform", 32 * MIB, sample=20_000)
SERVER = Stream("server", 64 * MIB, sample=20_000)


def test_static_tables_cost_nested_paging_longer_walks_and_nobody_else_anything():
    nested, shadow = measure(UNIFORM, HWMMU, 2000.0), measure(UNIFORM, HV, 2000.0)
    direct = measure(UNIFORM, PV, 2000.0)
    assert nested.counters["guest_faults"] == nested.counters["exits"] == 0
    assert direct.per_access == 0
    # a few more entries miss the walk caches
    assert abs(shadow.per_access) < 0.03 * nested.per_access
    assert nested.per_access > 20
    # all that is added are walks and their caches: what the cost model says of the same counts
    assert set(nested.groups) == {"walks", "walk caches"}, nested.groups
    assert nested.counters["references"] > 1.5 * direct.counters["references"]


def test_references_have_their_price():
    """Twice the price of a reference is twice the cycles, to the digit."""
    dear = {
        name: 2 * cost if name.startswith("reference") else cost
        for name, cost in CostModel("sagepte").table.items()
    }
    found = measure(UNIFORM, HWMMU, 2000.0)
    again = translation._counted(UNIFORM, "nested", "skylake-sp", "4K", "trace").priced(
        costs=CostModel("dear", dear), work=0
    )
    walks = again["nested"].cycles.groups["walks"] - again["native"].cycles.groups["walks"]
    assert walks > 1.5 * found.groups["walks"]


def test_overhead_in_closed_form():
    slow = measure(UNIFORM, HWMMU, 2000.0, accesses_per_s=1e6)
    assert slow.overhead == pytest.approx(slow.per_access * 1e6 / 2e9)
    fast = measure(UNIFORM, HWMMU, 4000.0, accesses_per_s=1e6)
    assert fast.overhead == pytest.approx(slow.overhead / 2)
    assert measure(UNIFORM, HWMMU, 2000.0, accesses_per_s=0).overhead == 0


def test_tables_that_change_cost_shadow_paging_most():
    shadow, nested = measure(SERVER, HV, 2000.0), measure(SERVER, HWMMU, 2000.0)
    assert shadow.per_access > 2 * nested.per_access > 0
    assert shadow.counters["exits"] > nested.counters["exits"]
    assert shadow.groups["page-fault exits"] > 0
    # the guest's own faults are not the hypervisor's
    assert "guest faults" not in shadow.groups or shadow.groups["guest faults"] == 0


def test_paravirtual_calls_are_counts_times_costs():
    costs = EventCosts("mine", {"page_fault": 1000, "page_table_update": 1})
    found = measure(SERVER, PV, 2000.0, event_costs=costs)
    assert found.groups["page_fault"] == 1000 * found.counters["guest_faults"]
    assert found.per_access == pytest.approx(sum(found.groups.values()) / found.accesses)
    assert found.mmu == "direct"


def test_large_pages_of_the_host_shorten_nested_walks():
    small = measure(UNIFORM, HWMMU, 2000.0, backing="4K")
    large = measure(UNIFORM, HWMMU, 2000.0, backing="2M")
    assert large.per_access < small.per_access


def test_counts_are_kept():
    translation.forget()
    measure(UNIFORM, HWMMU, 2000.0)
    measure(UNIFORM, HWMMU, 3000.0, costs="champsim")
    info = translation._counted.cache_info()
    assert (info.misses, info.hits) == (1, 1)


@pytest.mark.parametrize("kind", ["sequential", "stride", "uniform", "zipf"])
def test_patterns(kind):
    stream = Stream(kind, 8 * MIB, sample=5000, seed=3)
    sample = stream.make()
    (events,) = sample.events
    assert len(events) == 5000
    assert set(events["op"].tolist()) == {int(traces.Op.LOAD), int(traces.Op.STORE)}
    low, high = int(events["addr"].min()), int(events["addr"].max())
    assert high - low < 8 * MIB
    assert 0.2 < np.mean(events["op"] == traces.Op.STORE) < 0.4
    again = Stream(kind, 8 * MIB, sample=5000, seed=3).make()
    assert np.array_equal(again.events[0], events)
    if kind != "zipf":
        return
    # the most popular page has about 1 / H(2048) of all
    _, counts = np.unique(events["addr"] >> np.uint64(12), return_counts=True)
    assert counts.max() / 5000 == pytest.approx(1 / np.sum(1 / np.arange(1, 2049)), rel=0.2)


def test_a_trace(tmp_path):
    addresses = np.arange(200, dtype=np.uint64) * np.uint64(4096) + np.uint64(1 << 30)
    path = tmp_path / "trace.npy"
    traces.write(path, traces.accesses(addresses))
    found = measure(Stream("trace", file=str(path)), HWMMU, 2000.0)
    assert found.counters["guest_faults"] == 200
    assert found.per_access > 0


def test_bad_input():
    with pytest.raises(InvalidValueError, match="kind must be one of"):
        Stream("random")
    with pytest.raises(InvalidValueError, match="file must name a trace"):
        Stream("trace")
    with pytest.raises(InvalidValueError, match="footprint"):
        Stream("uniform", 0)
    with pytest.raises(InvalidTypeError, match="sample"):
        Stream("uniform", sample=1.5)
    with pytest.raises(InvalidValueError, match="stores"):
        Stream("uniform", stores=2.0)
    with pytest.raises(InvalidTypeError, match="exponent"):
        Stream("uniform", exponent="steep")
    with pytest.raises(InvalidTypeError, match="stream must be"):
        measure("uniform", HWMMU, 2000.0)
    with pytest.raises(InvalidTypeError, match="mode must be"):
        measure(UNIFORM, "HWMMU", 2000.0)
    with pytest.raises(InvalidValueError, match="agile must be False in mode BT"):
        measure(UNIFORM, BT, 2000.0, agile=True)
    with pytest.raises(InvalidValueError, match="mhz"):
        measure(UNIFORM, HWMMU, -1.0)
    with pytest.raises(InvalidTypeError, match="accesses_per_s"):
        measure(UNIFORM, HWMMU, 1.0, accesses_per_s="many")
    with pytest.raises(FileNotFoundError):
        measure(Stream("trace", file="/nowhere/trace.pvt"), HWMMU, 1.0)
