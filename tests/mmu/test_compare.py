"""Modes side by side: each is the engine alone on a copy; what comes out adds up."""

import copy
import json
import math
from typing import Any

import numpy as np
import pytest

import pyvirt as pv
from pyvirt.errors import InvalidTypeError, InvalidValueError, OutsideMemoryError
from pyvirt.mmu import presets
from pyvirt.mmu.compare import MODES, Comparison
from pyvirt.mmu.exits import EXIT_REASONS
from pyvirt.mmu.mixes import Mix, MixedGuest
from pyvirt.traces import EVENT_DTYPE, Op, accesses

THREE = ("native", "shadow", "nested")
FOUR = (*THREE, "agile")
ALL = (*FOUR, "legacy")
COUNT = 3000


@pytest.fixture(scope="module")
def guest() -> MixedGuest:
    return Mix(pages=2048, misses=0.1, updates=0.01).guest()


def run(guest: MixedGuest, **options: Any) -> Comparison:
    return pv.compare(guest.events(COUNT, rng=3), guest.memory, cr3=guest.cr3, **options)


@pytest.fixture(scope="module")
def found(guest: MixedGuest) -> Comparison:
    return run(guest, modes=ALL, before=guest.before())


@pytest.mark.parametrize("mode", ALL)
@pytest.mark.parametrize("tlb", [None, "reference"])
def test_each_mode_is_the_engine_alone(guest: MixedGuest, mode: str, tlb: str | None):
    if mode == "agile" and tlb is None:
        pytest.skip("agile paging needs a processor")
    modes = [name for name in ALL if tlb or name != "agile"]
    ours = run(guest, modes=modes, before=guest.before(), tlb=tlb, backing="2M")[mode]
    rules = pv.ShadowRules.policy("write_protect") if mode == "agile" else None
    machine = pv.Hypervisor(
        copy.deepcopy(guest.memory),
        tables=MODES[mode],  # type: ignore[arg-type]
        rules=rules,
        cr3=guest.cr3,
        tlb=tlb,
        backing="2M",
    )
    machine.run(guest.before())
    machine.reset()
    machine.run(guest.events(COUNT, rng=3))
    assert ours.counters == machine.counters[0]
    assert ours.exits_by_reason == {name: machine.counters[name][0] for name in EXIT_REASONS}
    if tlb is None:
        assert ours.mmu_counters is None
        assert ours.references == ours.walks == ours.tlb_misses == 0
    else:
        assert ours.mmu_counters == machine.mmu_counters[0]
        assert ours.references == int(
            machine.mmu_counters["guest_refs"].sum() + machine.mmu_counters["host_refs"].sum()
        )


def test_the_guest_means_the_same_in_every_mode(found: Comparison):
    edits = COUNT // 100
    assert {found[mode].guest_faults for mode in ALL} == {edits}
    assert found.events == COUNT + 5 * edits
    assert found.accesses == COUNT + 4 * edits
    assert found["native"].exits == found["native"].hidden_faults == 0
    assert found["shadow"].exits_by_reason["x_invlpg"] == edits
    assert found["nested"].exits_by_reason["x_pf"] == 0


def test_cycles_add_up(found: Comparison):
    memory = pv.CostModel("sagepte")
    exits = pv.ExitCosts("skylake-sp")
    for mode in ALL:
        one = found[mode]
        expected = 4 * found.accesses + exits.cycles(one.counters).total
        expected += memory.cycles(one.mmu_counters).total
        assert one.cycles.total == expected
        assert sum(one.cycles.groups.values()) == pytest.approx(expected)
        assert one.cycles.groups["work"] == 4 * found.accesses
        assert found.overhead(mode) == expected / found["native"].cycles.total - 1
    assert found.overhead("native") == 0
    assert found.best == min(ALL[1:], key=lambda mode: found[mode].cycles.total)


def test_exits_are_not_priced_twice(guest: MixedGuest):
    plain = run(guest, costs="sagepte")
    joined = run(guest, costs="sagepte|adams-agesen-2006")
    for mode in THREE:
        assert plain[mode].cycles.total == joined[mode].cycles.total
    own = pv.CostModel("own", {"ept_violation": 1e9, "mov_cr3": 1e9, "page_fault": 1e9})
    assert run(guest, costs=own)["nested"].cycles.total < 1e9


def test_prices_change_no_count(guest: MixedGuest):
    cheap = run(guest, exit_costs=pv.ExitCosts("free", {}), work=0, costs=pv.CostModel("free", {}))
    dear = run(guest, exit_costs="pentium4-672", work=100)
    for mode in THREE:
        assert cheap[mode].counters == dear[mode].counters
        assert cheap[mode].cycles.total == 0
    assert math.isnan(cheap.overhead("shadow"))
    assert json.loads(cheap.to_json())["modes"]["shadow"]["overhead"] is None


def test_other_prices_of_the_same_counts(guest: MixedGuest, found: Comparison):
    prices = {"costs": "champsim", "exit_costs": "nehalem", "work": 7}
    again = found.priced(**prices)
    run_anew = run(guest, modes=ALL, before=guest.before(), **prices)
    assert again.to_dict() == run_anew.to_dict()
    assert found.priced().to_dict() == found.to_dict()
    with pytest.raises(InvalidValueError, match="work must be finite"):
        found.priced(work=-1)


def test_the_memory_stays_as_it_was(guest: MixedGuest):
    before = guest.memory.read(0, guest.memory.end)
    run(guest)
    assert guest.memory.read(0, guest.memory.end) == before


def test_chunks_iterables_and_callables_are_the_same_stream(guest: MixedGuest):
    whole = np.concatenate(list(guest.events(COUNT, rng=3)))
    forms: list[Any] = [
        whole,
        [whole[:7], whole[7:7], whole[7:]],
        iter(np.array_split(whole, 13)),
        lambda: whole,
        lambda: iter([whole]),
    ]
    runs = [pv.compare(form, guest.memory, cr3=guest.cr3) for form in forms]
    for other in runs[1:]:
        assert other.to_table().tolist() == runs[0].to_table().tolist()
        assert other.to_dict() == runs[0].to_dict()


def test_a_stream_is_read_once_and_not_kept(guest: MixedGuest):
    alive = 0

    class Chunk(np.ndarray):
        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

    def chunks() -> Any:
        nonlocal alive
        for _ in range(20):
            chunk = guest.before()[:100].view(Chunk)
            alive += 1
            yield chunk
            del chunk
            assert alive <= 1

    assert pv.compare(chunks(), guest.memory, cr3=guest.cr3).events == 2000


def test_table(found: Comparison):
    table = found.to_table()
    assert table["mode"].tolist() == list(ALL)
    for row in table:
        one = found[row["mode"]]
        assert row["exits"] == one.exits == sum(row[name] for name in EXIT_REASONS)
        assert row["guest_faults"] == one.guest_faults
        assert row["hidden_faults"] == one.hidden_faults
        assert row["walks"] == one.walks
        assert row["cycles"] == one.cycles.total
        groups = [name for name in table.dtype.names if name.startswith("cycles_")]
        assert sum(row[name] for name in groups) == pytest.approx(row["cycles"])
        assert row["cycles_page_fault_exits"] == one.cycles.groups["page-fault exits"]


def test_document(found: Comparison):
    document = json.loads(found.to_json())
    assert document == found.to_dict()
    assert list(document["modes"]) == list(ALL)
    assert document["tlb"] == "skylake-sp"
    shadow = document["modes"]["shadow"]
    assert shadow["exits_by_reason"] == found["shadow"].exits_by_reason
    assert shadow["counters"]["x_pf"] == found["shadow"].counters["x_pf"]


def test_text(found: Comparison):
    lines = str(found).splitlines()
    assert lines[0].split() == list(ALL)
    rows = {line[:18].strip(): line[18:].split() for line in lines[1:]}
    assert rows["exits"] == [f"{found[mode].exits:,}" for mode in ALL]
    assert rows["overhead"][0] == "0.0%"
    assert "x_cr4" not in rows


def test_without_native(guest: MixedGuest):
    found = run(guest, modes=["nested"])
    assert math.isnan(found.overhead("nested"))
    assert "overhead" not in str(found)
    assert found.best == "nested"
    assert run(guest, modes=["native"]).best == "native"


def test_the_usual_modes(guest: MixedGuest):
    assert tuple(run(guest).runs) == FOUR
    assert tuple(run(guest, tlb=None).runs) == THREE
    with pytest.raises(InvalidValueError, match="tlb"):
        run(guest, modes=["agile"], tlb=None)


def test_rules_of_agile_paging(guest: MixedGuest):
    moved = run(guest, modes=["agile"])["agile"].counters["agile_moved"]
    never = run(guest, modes=["agile"], agile=pv.AgileRules(writes=0))
    assert moved > 0 == never["agile"].counters["agile_moved"]
    # without edits it is shadow paging
    quiet = Mix(pages=2048, misses=0.3).guest()
    found = run(quiet, before=quiet.before())
    assert found["agile"].cycles == found["shadow"].cycles
    given = run(guest, modes=["agile"], rules=pv.ShadowRules())["agile"].counters
    assert given["unsyncs"] > 0 == run(guest, modes=["agile"])["agile"].counters["unsyncs"]


def test_several_vcpus():
    guest = Mix(pages=64).guest()
    events = guest.before()
    events["vcpu"] = np.arange(len(events)) % 2
    found = pv.compare(events, guest.memory, cr3=guest.cr3, vcpus=2)
    assert found["nested"].mmu_counters["accesses"].sum() >= len(events)


def test_a_geometry(guest: MixedGuest):
    geometry = presets.load("zen3")
    assert run(guest, tlb=geometry).settings["tlb"] == "zen3"
    assert run(guest, tlb=geometry).to_dict() == run(guest, tlb="zen3").to_dict()


def test_an_event_that_cannot_be(guest: MixedGuest):
    events = guest.before()[:5]
    events["op"][3] = Op.MOV_CR3
    events["value"][3] = 1 << 40
    with pytest.raises(OutsideMemoryError, match=r"mode native: event 8 \(op 16"):
        pv.compare([guest.before()[:5], events], guest.memory, cr3=guest.cr3)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"modes": ["shadows"]}, InvalidValueError, "no mode is named 'shadows'; nearest: shadow"),
        ({"modes": []}, InvalidTypeError, "modes must be a sequence of names"),
        ({"modes": "shadow"}, InvalidTypeError, "modes must be a sequence of names"),
        ({"modes": ["nested", "nested"]}, InvalidValueError, "modes has 'nested' twice"),
        ({"memory": 5}, InvalidTypeError, "memory must be a PhysicalMemory, got 5"),
        ({"cr3": 1 << 40}, OutsideMemoryError, "cr3 is not in memory"),
        ({"tlb": "zen33"}, InvalidValueError, "zen33"),
        ({"costs": "sagept"}, InvalidValueError, "no cost table is named 'sagept'"),
        ({"costs": 3}, InvalidTypeError, "costs must be a CostModel or the name of a table"),
        ({"exit_costs": "skylake"}, InvalidValueError, "no exit cost table is named 'skylake'"),
        ({"exit_costs": pv.CostModel("sagepte")}, InvalidTypeError, "exit_costs must be an ExitC"),
        ({"work": -1}, InvalidValueError, "work must be finite and >= 0, got -1"),
        ({"work": "4"}, InvalidTypeError, "work must be a number of cycles, got '4'"),
        ({"events": 3}, InvalidTypeError, "events must be an array of EVENT_DTYPE"),
        ({"events": np.zeros(3)}, InvalidTypeError, "events must be a one-dimensional"),
        ({"before": 3}, InvalidTypeError, "before must be an array of EVENT_DTYPE"),
        ({"vcpu": 2}, InvalidValueError, "no option is named 'vcpu'; nearest: vcpus"),
        ({"tables": "tdp"}, InvalidValueError, "no option is named 'tables'"),
        ({"backing": "1G"}, InvalidValueError, 'backing must be "4K" or "2M"'),
    ],
)
def test_bad_input(options: dict[str, Any], error: type[Exception], words: str):
    memory = pv.PhysicalMemory(1 << 22)
    tables = pv.PageTables(memory, frames=(0x100000, 0x100000))
    given = {"events": np.zeros(0, EVENT_DTYPE), "memory": memory, "cr3": tables.root, **options}
    with pytest.raises(error, match=words):
        pv.compare(given.pop("events"), given.pop("memory"), **given)


def test_no_event_at_all():
    memory = pv.PhysicalMemory(1 << 22)
    tables = pv.PageTables(memory, frames=(0x100000, 0x100000))
    found = pv.compare(accesses([]), memory, cr3=tables.root)
    assert found.accesses == 0
    assert str(found)
    with pytest.raises(InvalidValueError, match="no run has the mode 'legacy'"):
        found["legacy"]
