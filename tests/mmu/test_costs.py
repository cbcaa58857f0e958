"""Cost models: what each counter costs, what is refused, and the published projections."""

import dataclasses
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyvirt._core.dtypes import COUNTER_DTYPE
from pyvirt.errors import InvalidTypeError, InvalidValueError
from pyvirt.mmu import costs
from pyvirt.mmu.costs import CLASSES, CostModel, linear_overhead, project
from pyvirt.validation import Context, projection

#: A class for each element of a counter that has a cost.
PRICED = [
    *(
        (("tlb_hits", (level, size)), f"tlb_hit_{level + 1}")
        for level in range(7)
        for size in range(3)
    ),
    *((("walks", size), "walk") for size in range(3)),
    *(
        ((f"{side}_refs", level), f"reference_{side}")
        for side in ("guest", "host")
        for level in range(6)
    ),
    *(
        ((f"{side}_cache_hits", n), "walk_cache_hit")
        for side in ("guest", "host")
        for n in range(6)
    ),
    *((("nested_tlb_hits", size), "nested_tlb_hit") for size in range(3)),
    *(((f"{side}_a_set", ()), "accessed_update") for side in ("guest", "host")),
    *(((f"{side}_d_set", ()), "dirty_update") for side in ("guest", "host")),
    *(
        (("data_cache_hits", n), f"reference_{where}")
        for n, where in enumerate(("l1", "l2", "l3", "memory"))
    ),
    *(
        (("invalidations", n), name)
        for n, name in enumerate(
            ["invlpg", "mov_cr3", "mov_cr4", "mov_cr0", "invpcid", "invvpid", "invept"]
            + ["invlpga", "tlb_control", "vm_entry", "vm_exit"]
        )
    ),
    *(
        ((f"{name}s", ()), name)
        for name in ("dirty_assist", "rights_rewalk", "ept_violation", "ept_misconfiguration")
    ),
    (("page_faults", ()), "page_fault"),
    (("pml_entries", ()), "pml_entry"),
    (("pml_full", ()), "pml_full"),
    (("shootdowns", ()), "shootdown"),
    (("ipis", ()), "ipi"),
]
PRIMES = {name: 2 * i + 1 for i, name in enumerate(CLASSES)}


def test_every_class_is_priced_by_a_counter():
    assert {name for _, name in PRICED} == set(CLASSES)


@pytest.mark.parametrize(("counter", "name"), PRICED)
def test_one_event(counter, name: str):
    record = np.zeros((), COUNTER_DTYPE)
    field, index = counter
    record[field][index] = 7
    spent = CostModel("odd", PRIMES).cycles(record)
    assert spent.events == {name: 7}
    assert spent.breakdown == {name: 7 * PRIMES[name]}
    assert spent.total == 7 * PRIMES[name]
    assert sum(spent.groups.values()) == spent.total


FREE = ["accesses", "faults", "nested_walks", "dropped", "splits"]


def test_every_counter_is_priced_or_free():
    assert {field for (field, _), _ in PRICED} | set(FREE) == set(COUNTER_DTYPE.names)


@pytest.mark.parametrize("field", FREE)
def test_what_costs_nothing(field: str):
    record = np.zeros((), COUNTER_DTYPE)
    record[field] = 5
    assert CostModel("odd", PRIMES).cycles(record).total == 0


def test_what_invalidates_on_a_fault_is_not_priced_twice():
    counters = {"invalidations": [0] * 11 + [4, 4, 0, 0, 0], "page_faults": 4}
    spent = CostModel("odd", PRIMES).cycles(counters)
    assert spent.events == {"page_fault": 4}


def test_references_by_level_where_a_data_cache_ran():
    counters = {"guest_refs": [0, 9, 1, 1, 1, 0], "host_refs": [0, 4, 0, 0, 0, 0]}
    model = CostModel("sagepte")
    assert model.cycles(counters).total == 54 * 16
    counters["data_cache_hits"] = [10, 3, 2, 1]
    assert model.cycles(counters).total == 10 * 4 + 3 * 14 + 2 * 54 + 200


def test_records_arrays_and_mappings_agree():
    rng = np.random.default_rng(5)
    cores = np.zeros(3, COUNTER_DTYPE)
    for name in cores.dtype.names:
        cores[name] = rng.integers(0, 1 << 40, cores[name].shape)
    model = CostModel("odd", PRIMES)
    alone = [model.cycles(core) for core in cores]
    assert model.cycles(cores).total == sum(spent.total for spent in alone)
    mapping = {name: cores[0][name] for name in cores.dtype.names}
    assert model.cycles(mapping) == alone[0]
    plain = {name: np.ravel(value).tolist() for name, value in mapping.items()}
    assert model.cycles(plain) == alone[0]
    assert model.cycles(cores[:0]).total == 0


def test_sums_do_not_overflow():
    cores = np.zeros(4, COUNTER_DTYPE)
    cores["ipis"] = 2**64 - 1
    assert CostModel("ipi", {"ipi": 3}).cycles(cores).total == 12 * (2**64 - 1)


def test_fields_that_a_later_engine_may_have_are_passed_over():
    record = np.zeros((), [*COUNTER_DTYPE.descr, ("novelties", "<u8")])
    record["novelties"] = 1
    assert CostModel("odd", PRIMES).cycles(record).total == 0


@pytest.mark.parametrize(
    ("counters", "error", "words"),
    [
        (
            {"guest_ref": [0] * 6},
            InvalidValueError,
            "no counter is named 'guest_ref'; .*guest_refs",
        ),
        ({"guest_refs": [0] * 5}, InvalidValueError, "guest_refs must have 6 elements, got 5"),
        ({"ipis": -1}, InvalidValueError, "ipis must not be negative"),
        ({"ipis": 1.5}, InvalidTypeError, "ipis must be integers, got dtype float64"),
        ({"ipis": True}, InvalidTypeError, "ipis must be integers, got dtype bool"),
        ([1, 2], InvalidTypeError, "counters must be a mapping, a structured array or a record"),
        (np.zeros(3), InvalidTypeError, "counters must be a mapping"),
    ],
)
def test_counters_that_make_no_sense(counters, error: type, words: str):
    with pytest.raises(error, match=words):
        CostModel("sagepte").cycles(counters)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (("sagept",), InvalidValueError, "no cost table is named 'sagept'; nearest: sagepte"),
        ((3,), InvalidTypeError, "name must be the name of a cost table, got 3"),
        (("x", {"tlb_hit": 1}), InvalidValueError, "unknown class 'tlb_hit'; nearest: tlb_hit_"),
        (("x", {"ipi": -1}), InvalidValueError, r"costs\['ipi'\] must be finite and >= 0, got -1"),
        (("x", {"ipi": float("nan")}), InvalidValueError, "must be finite"),
        (("x", {"ipi": float("inf")}), InvalidValueError, "must be finite"),
        (("x", {"ipi": "1"}), InvalidTypeError, r"costs\['ipi'\] must be a number, got '1'"),
        (("x", {"ipi": True}), InvalidTypeError, "must be a number"),
        (("x", [("ipi", 1)]), InvalidTypeError, "costs must map classes to cycles"),
    ],
)
def test_models_that_make_no_sense(arguments, error: type, words: str):
    with pytest.raises(error, match=words):
        CostModel(*arguments)


def test_models_are_values():
    model = CostModel("x", {"ipi": np.int64(3), "walk": 0.5})
    assert model == CostModel("x", {"walk": 0.5, "ipi": 3})
    assert hash(model) == hash(pickle.loads(pickle.dumps(model)))
    assert pickle.loads(pickle.dumps(model)) == model
    with pytest.raises(dataclasses.FrozenInstanceError):
        model.name = "y"
    with pytest.raises(TypeError):
        model.costs["ipi"] = 4


def test_joined_models():
    left, right = CostModel("a", {"ipi": 1, "walk": 2}), CostModel("b", {"ipi": 5})
    assert dict((left | right).costs) == {"walk": 2, "ipi": 5}
    assert dict((right | left).costs) == {"walk": 2, "ipi": 1}
    assert (left | right).name == "a|b"
    with pytest.raises(TypeError):
        left | {"ipi": 1}


@pytest.mark.parametrize("name", costs.names())
def test_every_cost_has_a_source(name: str):
    model = CostModel(name)
    found = {source.field: source for source in model.sources()}
    assert {field: source.value for field, source in found.items()} == dict(model.costs)
    assert all(" " in source.source for source in found.values())
    title, notes = costs.describe(name)
    assert title
    assert notes


def test_tables():
    assert costs.names() == ["adams-agesen-2006", "adams-agesen-2006-p4", "champsim", "sagepte"]
    walk = {f"reference_{level}" for level in ("l1", "l2", "l3", "memory")} | {"walk_cache_hit"}
    sagepte = CostModel("sagepte")
    assert {sagepte.costs[name] for name in walk} == {1, 4, 14, 54, 200}
    assert not any(s.recalled for s in sagepte.sources() if s.field in walk)
    assert all(source.recalled for source in CostModel("adams-agesen-2006").sources())
    with pytest.raises(InvalidValueError, match="'sagepte' are not those of that table"):
        CostModel("sagepte", {"ipi": 1}).sources()
    with pytest.raises(InvalidValueError, match="no cost table is named"):
        costs.describe("nothing")


def test_project():
    assert project(0.5, 2) == pytest.approx(4 / 3)
    assert project(0, 100) == 1
    assert project(1, 7) == pytest.approx(7)
    assert project([[0.0], [1.0]], [2, 4]).tolist() == [[1, 1], [2, 4]]
    assert project(0.25, np.inf) == pytest.approx(4 / 3)


@given(st.floats(0, 1), st.floats(0.01, 1e6), st.floats(1, 100))
def test_faster_walks_never_slow_a_program(fraction: float, speedup: float, factor: float):
    assert project(fraction, speedup * factor) >= project(fraction, speedup) * (1 - 1e-12)


@pytest.mark.parametrize(
    ("fraction", "speedup", "error"),
    [
        (-0.1, 2, InvalidValueError),
        ([0.5, 1.1], 2, InvalidValueError),
        (np.nan, 2, InvalidValueError),
        (0.5, 0, InvalidValueError),
        (0.5, np.nan, InvalidValueError),
        ("half", 2, InvalidTypeError),
        (0.5, None, InvalidValueError),  # NumPy makes it NaN
    ],
)
def test_projections_out_of_range(fraction, speedup, error: type):
    with pytest.raises(error, match="walk_"):
        project(fraction, speedup)


def test_linear_overhead():
    assert linear_overhead([10, 20], 24, 50).tolist() == [12000, 24000]
    with pytest.raises(InvalidValueError, match="cycles must not be negative"):
        linear_overhead(1, 2, -3)


def test_a10():
    outcome = projection.projection(Context())
    assert (outcome.verdict, outcome.cases, outcome.failed) == ("pass", 13, 0), outcome.reason
    assert outcome.measured == outcome.expected
    assert "1.7465" in outcome.reason


@pytest.mark.parametrize("field", ["walk_fraction", "agile_walk", "agile_program", "sage_walk"])
def test_a10_notices_a_wrong_figure(field: str, monkeypatch: pytest.MonkeyPatch):
    first, *others = projection.WORKLOADS
    wrong = dataclasses.replace(first, **{field: getattr(first, field) * 1.01})
    monkeypatch.setattr(projection, "WORKLOADS", (wrong, *others))
    outcome = projection.projection(Context())
    assert (outcome.verdict, outcome.failed) == ("fail", 1)
    assert outcome.reason.startswith("btree: ")
    assert outcome.measured != outcome.expected
