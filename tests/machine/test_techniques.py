"""Costs of execution techniques: published numbers, sources, closed forms, bad input."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyvirt.errors import InvalidTypeError, InvalidValueError
from pyvirt.machine.modes import MonitorMode
from pyvirt.machine.techniques import (
    DRIVER_BATCH,
    EVENTS,
    ROUTES,
    EventCosts,
    MonitorExitCosts,
    cost_table,
    execution,
)

BT, HV, HWMMU, PV = MonitorMode
# Adams and Agesen 2006 as quoted: native, software VMM, hardware VMM
NANO = {
    "call_return": (11, 51, 11),
    "page_fault": (1093, 3927, 11242),
    "exception": (889, 3223, 1014),
    "page_table_update": (1, 391, 12733),
}


@pytest.mark.parametrize("event", NANO)
def test_nanobenchmarks_come_out_again(event):
    native, software, hardware = NANO[event]
    assert native + EventCosts("bt-pentium4").table.get(event, 0) == software
    assert native + EventCosts("hv-pentium4").table.get(event, 0) == hardware


def test_order_of_techniques_is_that_of_the_paper():
    software, hardware = EventCosts("bt-pentium4").table, EventCosts("hv-pentium4").table
    for event in ("syscall", "call_return", "exception"):
        assert hardware.get(event, 0) < software[event]
    for event in ("io", "page_fault", "page_table_update"):
        assert software[event] < hardware[event]
    # 32.6 in the paper, of operations
    assert 25 < (hardware["page_table_update"] + 1) / (software["page_table_update"] + 1) < 40


@pytest.mark.parametrize("name", EventCosts.names())
def test_every_cost_has_a_source_and_every_event_a_route(name):
    table = EventCosts(name)
    for source in table.sources():
        assert len(source.source) > 4
    assert set(table.table) <= set(EVENTS)
    assert set(table.routes().values()) <= set(ROUTES)
    assert set(table.routes()) >= set(EVENTS) - {"translation_unit"}
    # what costs something is not dealt with by nobody
    for event, cost in table.table.items():
        if table.routes()[event] == "direct":
            assert cost < 200


def test_exit_costs_of_binary_translation_are_those_of_its_nanobenchmarks():
    exits, events = MonitorExitCosts("bt-pentium4").table, EventCosts("bt-pentium4").table
    assert exits["page_fault_exit"] == events["page_fault"]
    assert exits["write_emulated"] == events["page_table_update"]
    assert MonitorExitCosts("bt-pentium4").sources()


def test_overhead_in_closed_form():
    rates = {"syscall": 5000, "io": 800, "page_fault": 100}
    found = execution(rates, BT, 2000.0)
    assert found.overhead == pytest.approx((5000 * 2000 + 800 * 214 + 100 * 2834) / 2e9)
    assert execution(rates, BT, 2000.0, memory=False).overhead == pytest.approx(
        (5000 * 2000 + 800 * 214) / 2e9
    )
    assert execution({}, HV, 1000.0).overhead == 0
    # twice the clock, half the share
    assert execution(rates, BT, 4000.0).overhead == pytest.approx(found.overhead / 2)


def test_tools_batch_what_a_device_is_told():
    without = execution({"io": 3200}, HWMMU, 2000.0)
    with_tools = execution({"io": 3200}, HWMMU, 2000.0, tools=True)
    assert with_tools.overhead == pytest.approx(without.overhead / DRIVER_BATCH)
    assert with_tools.rates == {"io": 200}


@given(
    st.dictionaries(st.sampled_from(EVENTS), st.floats(0, 1e6)),
    st.sampled_from(list(MonitorMode)),
    st.floats(1, 1e4),
)
def test_overhead_is_linear_in_rates(rates, mode, factor):
    once = execution(rates, mode, 1000.0).overhead
    more = execution({event: rate * factor for event, rate in rates.items()}, mode, 1000.0).overhead
    assert more == pytest.approx(once * factor)


def test_defaults_by_mode():
    for mode, prefix in ((BT, "bt-"), (HV, "hv-"), (HWMMU, "hwmmu-"), (PV, "pv-")):
        assert cost_table(mode).name.startswith(prefix)
    assert cost_table(HV, "hv-pentium4").name == "hv-pentium4"
    assert cost_table(HV, EventCosts("mine", {"io": 1})).table == {"io": 1}


def test_bad_input():
    with pytest.raises(InvalidValueError, match="unknown event 'sycall'; nearest: syscall"):
        execution({"sycall": 1}, BT, 1000)
    with pytest.raises(InvalidTypeError, match="must be a number"):
        execution({"syscall": "many"}, BT, 1000)
    with pytest.raises(InvalidValueError, match=r"must be in \[0"):
        execution({"syscall": -1}, BT, 1000)
    with pytest.raises(InvalidTypeError, match="rates must map"):
        execution([1], BT, 1000)
    with pytest.raises(InvalidValueError, match="mhz"):
        execution({}, BT, 0)
    with pytest.raises(InvalidTypeError, match="mhz"):
        execution({}, BT, "fast")
    with pytest.raises(InvalidValueError, match="must be one of hv-"):
        cost_table(HV, "bt-pentium4")
    with pytest.raises(InvalidValueError, match="no event cost table is named 'pentium'"):
        cost_table(HV, "pentium")
    with pytest.raises(InvalidTypeError, match="EventCosts or a name"):
        cost_table(HV, 7)
    with pytest.raises(InvalidValueError, match="no event cost table"):
        EventCosts("mine", {"io": 1}).routes()
