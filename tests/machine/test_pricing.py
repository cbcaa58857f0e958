"""Prices of counted events, and estimates from rates with their warning."""

import doctest
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyvirt.errors import EstimateWarning, InvalidTypeError, InvalidValueError
from pyvirt.machine import MonitorMode, VMkernel, pricing
from pyvirt.machine.pricing import EXITS_OF, estimate, exit_cost_table, price
from pyvirt.machine.techniques import EVENTS, GROUPS, EventCosts, execution
from pyvirt.mmu.exits import ExitCosts
from pyvirt.spec import VMSpec
from pyvirt.x86 import guests
from pyvirt.x86.monitor import MonitorCounts
from pyvirt.x86.pc import PC

BT, HV, HWMMU, PV = MonitorMode


def counted(**events):
    return MonitorCounts(1000, {}, dict.fromkeys(EVENTS, 0) | events, {}, 0, {}, {})


@pytest.mark.parametrize("name", EventCosts.names())
def test_each_event_times_its_cost(name):
    table = EventCosts(name).table
    for event in EVENTS:
        found = price(counted(**{event: 7}), name, cpi=2.0)
        assert found.total == pytest.approx(7 * table.get(event, 0))
        assert found.overhead == pytest.approx(found.total / 2000)
        assert found.cycles == ({event: found.total} if found.total else {})
    assert price(MonitorCounts(0, {}, {}, {}, 0, {}, {}), name).overhead == 0


def test_a_hypercall_is_priced_once():
    table = EventCosts("pv-xen-2003").table
    # ten entries by one call: the round trip, and nothing beyond it
    batch = price(counted(page_table_update=10, hypercall=1), "pv-xen-2003")
    assert batch.cycles == {"hypercall": table["hypercall"]}
    switch = price(counted(context_switch=1, hypercall=1), "pv-xen-2003")
    assert switch.total == table["context_switch"]
    fault = price(counted(page_fault=1, hypercall=1), "pv-xen-2003")
    assert fault.total == table["page_fault"] + table["hypercall"]


@pytest.mark.parametrize("name", [*EXITS_OF, "pv-xen-2003"])
def test_tables_of_exits_are_there(name):
    found = exit_cost_table(name)
    assert (found is None) == name.startswith("pv-")
    if found is not None:
        assert found.sources()


def test_work_on_tables_is_priced_by_what_it_was():
    pc = PC(disk=guests.kernel_disk(), technique="hardware", monitor={"paging": "shadow"})
    pc.boot(guests.kernel_image())
    pc.run()
    counts, paging = pc.monitor.counts, pc.monitor.paging_counts
    coarse, fine = (price(counts, "hv-skylake-sp", paging=given) for given in (None, paging))
    assert (coarse.exits, fine.exits) == ("", "skylake-sp")
    assert not set(fine.cycles) & set(GROUPS["memory"])
    for event in coarse.cycles.keys() - set(GROUPS["memory"]):
        assert fine.cycles[event] == coarse.cycles[event]
    # by hand: exits of one kind, the faults that were the guest's, the entries that were filled
    exits = ExitCosts("skylake-sp").table
    assert fine.cycles["page_fault_exit"] == counts.exits[0] * exits["page_fault_exit"]
    assert fine.cycles["fault_reflected"] == counts.events["page_fault"] * exits["fault_reflected"]
    assert fine.cycles["cr3_exit"] == pytest.approx(
        counts.events["context_switch"] * exits["cr3_exit"], rel=0.02
    )
    filled = sum(int(one["filled"].sum()) for one in paging)
    assert fine.cycles["entry_filled"] == filled * exits["entry_filled"]
    # what the guest pays without a monitor, too, and exits that have events, are not in it
    assert not {"guest_fault", "cr_exit", "io_exit"} & set(fine.cycles)
    cheap = price(counts, "hv-skylake-sp", paging=paging, exit_costs=ExitCosts("mine", {}))
    assert cheap.total == sum(
        cycles for event, cycles in coarse.cycles.items() if event not in GROUPS["memory"]
    )


@given(
    st.dictionaries(
        st.sampled_from(GROUPS["execution"]), st.lists(st.floats(0, 1e9), min_size=3, max_size=3)
    ),
    st.booleans(),
)
def test_many_guests_are_each_for_itself(rates, tools):
    found = estimate(
        {k: np.array(v) for k, v in rates.items()}, list(MonitorMode), 2600, tools=tools
    )
    assert found.overhead.shape == (4, 3) if rates else (4,)
    for row, mode in enumerate(MonitorMode):
        for column in range(3 if rates else 0):
            one = {event: values[column] for event, values in rates.items()}
            alone = execution(one, mode, 2600, tools=tools)
            assert found.overhead[row, column] == pytest.approx(alone.overhead)
            assert found.tables[row] == alone.table
    assert not found.memory.any()


def test_the_warning_comes_where_memory_dominates():
    with pytest.warns(EstimateWarning, match=r"memory events are 100% of what mode HV costs"):
        found = estimate({"page_fault": [0.0, 1e5], "io": 100.0}, (HV, HWMMU), 2000)
    assert found.memory[:, 0].tolist() == [0, 0]
    assert found.best.tolist() == [0, 1]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        estimate({"page_fault": 10.0, "io": 1000.0}, HV, 2000)
        estimate({"page_fault": 1e6}, HWMMU, 2000)  # they are the guest's own there


def test_estimates_of_a_vmm_are_those_of_its_mode_and_host():
    host = VMkernel("esx", cpus=1, mhz=2500, event_costs={HV: "hv-pentium4"})
    vmm = host.power_on(
        VMSpec("vm", exec="hardware", mmu="software", guest_os="winnt4", bits=32, tools=False)
    )
    rates = {"io": 2000.0, "cpuid": 100.0}
    assert vmm.mode is HV
    want = execution(rates, HV, 2500, costs="hv-pentium4").overhead
    assert vmm.estimate(rates).overhead == pytest.approx(want)
    assert vmm.estimate(rates).tables == ("hv-pentium4",)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: estimate({"sycall": 1}, BT, 1000), InvalidValueError, "nearest: syscall"),
        (lambda: estimate({"io": "x"}, BT, 1000), InvalidTypeError, "must be numbers"),
        (lambda: estimate({"io": [1, -1]}, BT, 1000), InvalidValueError, r"must be in \[0"),
        (lambda: estimate({"io": [float("nan")]}, BT, 1000), InvalidValueError, "got nan"),
        (
            lambda: estimate({"io": [1, 2], "msr": [1, 2, 3]}, BT, 1000),
            InvalidValueError,
            r"fit together, got io \(2,\), msr \(3,\)",
        ),
        (lambda: estimate([1], BT, 1000), InvalidTypeError, "rates must map"),
        (lambda: estimate({}, "BT", 1000), InvalidTypeError, "one or more MonitorMode"),
        (lambda: estimate({}, BT, 0), InvalidValueError, "mhz"),
        (lambda: estimate({}, BT, "1"), InvalidTypeError, "mhz"),
        (lambda: price(counted(), 7), InvalidTypeError, "EventCosts or a name"),
        (lambda: price(counted(), "bt-pentium5"), InvalidValueError, "nearest: bt-pentium4"),
        (lambda: price(counted(), "bt-pentium4", cpi=0), InvalidValueError, "cpi"),
        (lambda: price(counted(), "bt-pentium4", cpi="1"), InvalidTypeError, "cpi"),
        (lambda: price(counted(), "bt-pentium4", exit_costs=3), InvalidTypeError, "exit_costs"),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_examples_in_docstrings():
    found = doctest.testmod(pricing)
    assert found.attempted > 5
    assert not found.failed
