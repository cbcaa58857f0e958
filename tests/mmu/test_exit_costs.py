"""Exit costs: what each counter of a hypervisor costs, and that every number has a source."""

import dataclasses
import pickle

import numpy as np
import pytest

import pyvirt as pv
from pyvirt._core.shadow.engine import COUNTER_DTYPE
from pyvirt.errors import InvalidTypeError, InvalidValueError
from pyvirt.mmu import exits
from pyvirt.mmu.exits import CLASSES, EXIT_REASONS, ExitCosts

#: The class that one count of each counter is.
PRICED = {
    **{"guest_faults": "guest_fault", "x_pf": "page_fault_exit", "pf_guest": "fault_reflected"},
    **{
        "x_npf": "violation_exit",
        "x_invlpg": "invlpg_exit",
        "x_invpcid": "invlpg_exit",
        "x_cr3_write": "cr3_exit",
    },
    **{"x_cr0": "cr_exit", "x_cr4": "cr_exit", "x_io": "io_exit", "x_other": "other_exit"},
    **{"x_pml_full": "pml_full_exit", "agile_moved": "table_moved"},
    **{"agile_returned": "table_moved"},
    **{"pf_mmio": "no_memory_emulated", "mmu_pte_write": "write_emulated"},
    **{"filled": "entry_filled", "prefetched": "entry_prefetched"},
    **{"mmu_cache_miss": "page_made", "mmu_shadow_zapped": "page_zapped"},
    **{"unsyncs": "table_unsynced", "sync_compared": "entry_compared"},
    **{"reverse_map_walked": "reverse_map_step", "tlb_flush": "flush"},
}
PRIMES = {name: 2 * i + 1 for i, name in enumerate(CLASSES)}


def test_every_class_has_a_counter_and_every_reason_a_class():
    assert set(PRICED.values()) == set(CLASSES)
    assert set(PRICED) <= set(COUNTER_DTYPE.names)
    assert {name for name in COUNTER_DTYPE.names if name.startswith("x_")} == set(EXIT_REASONS)
    assert set(EXIT_REASONS) <= set(PRICED)


@pytest.mark.parametrize("field", COUNTER_DTYPE.names)
def test_one_counter(field: str):
    record = np.zeros((), COUNTER_DTYPE)
    record[field] = 7
    spent = ExitCosts("odd", PRIMES).cycles(record)
    name = PRICED.get(field)
    assert spent.events == ({name: 7} if name else {})
    assert spent.total == (7 * PRIMES[name] if name else 0)
    assert sum(spent.groups.values()) == spent.total
    assert list(spent.groups) == list(exits.GROUPS)


def test_records_arrays_and_mappings_agree():
    record = np.zeros(1, COUNTER_DTYPE)
    for i, name in enumerate(PRICED):
        record[name] = i + 1
    model = ExitCosts("odd", PRIMES)
    assert model.cycles(record) == model.cycles(record[0])
    assert model.cycles({name: i + 1 for i, name in enumerate(PRICED)}) == model.cycles(record)
    # a counter that a later engine may have costs nothing
    assert model.cycles({"novelties": 3}).total == 0


@pytest.mark.parametrize("name", ExitCosts.names())
def test_every_cost_has_a_source(name: str):
    model = ExitCosts(name)
    found = {source.field: source for source in model.sources()}
    assert {field: source.value for field, source in found.items()} == dict(model.costs)
    assert all(" " in source.source for source in found.values())
    assert ExitCosts.describe(name)[0]
    # what a mode could get for nothing would win
    assert set(model.costs) >= set(CLASSES) - {"flush"}


def test_there_are_generations():
    assert len(ExitCosts.names()) >= 4
    trips = [ExitCosts(name).costs["page_fault_exit"] for name in ("pentium4-672", "core2-duo")]
    trips += [ExitCosts(name).costs["page_fault_exit"] for name in ("nehalem", "skylake-sp")]
    assert trips == sorted(trips, reverse=True)


def test_the_nanobenchmarks_come_out():
    """A page fault, an edit of a table and IN cost what Adams and Agesen measured."""
    model = ExitCosts("pentium4-672")
    fault = {"guest_faults": 1, "x_pf": 1, "pf_guest": 1}
    assert model.cycles(fault).total == 11242
    assert model.cycles({"x_pf": 1, "mmu_pte_write": 1}).total == 12733 - 1
    assert model.cycles({"x_io": 1}).total == 15826


def test_they_are_values():
    model = ExitCosts("x", {"flush": 3})
    assert pickle.loads(pickle.dumps(model)) == model
    assert hash(model) == hash(ExitCosts("x", {"flush": 3}))
    with pytest.raises(dataclasses.FrozenInstanceError):
        model.name = "y"


def test_joined():
    both = ExitCosts.joined("nehalem | skylake-sp")
    assert both.costs == ExitCosts("skylake-sp").costs
    assert both.name == "nehalem|skylake-sp"
    with pytest.raises(TypeError):
        pv.CostModel("sagepte") | ExitCosts("nehalem")


def test_the_sum_of_two_kinds_of_cycles():
    walks = pv.CostModel("w", {"walk": 2}).cycles({"walks": [3, 0, 0]})
    flushes = ExitCosts("f", {"flush": 5}).cycles({"tlb_flush": 1})
    both = walks + flushes
    assert both.total == 11
    assert both.groups["walks"] == 6
    assert both.groups["table upkeep"] == 5
    with pytest.raises(InvalidValueError, match="both have"):
        walks + walks
    with pytest.raises(TypeError):
        walks + 1


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (("skylake",), InvalidValueError, "no exit cost table is named 'skylake'; nearest: sky"),
        ((3,), InvalidTypeError, "name must be the name of an exit cost table, got 3"),
        (("x", {"flushes": 1}), InvalidValueError, "unknown class 'flushes'; nearest: flush"),
        (("x", {"flush": -1}), InvalidValueError, r"costs\['flush'\] must be finite and >= 0"),
        (("x", {"flush": "1"}), InvalidTypeError, r"costs\['flush'\] must be a number"),
    ],
)
def test_models_that_make_no_sense(arguments, error: type, words: str):
    with pytest.raises(error, match=words):
        ExitCosts(*arguments)


@pytest.mark.parametrize("counters", [[1], np.zeros(2), {"x_pf": 1.5}])
def test_counters_that_make_no_sense(counters):
    with pytest.raises(InvalidTypeError):
        ExitCosts("nehalem").cycles(counters)
