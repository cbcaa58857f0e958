"""``pyvirt mmu``: counters equal those from Python; options, output, bad input."""

import json
import lzma
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

import pyvirt as pv
from pyvirt import traces
from pyvirt.cli import main
from pyvirt.cli.mmu import RUN_ONLY, SHIFTS, mmu
from pyvirt.mmu import costs, presets
from pyvirt.mmu.demand import DemandMapper
from pyvirt.mmu.sweep import sweep
from pyvirt.traces import Op

CHECKOUT = Path(__file__).parents[2]
SHIPPED = CHECKOUT / "docs" / "examples" / "data" / "mawk-hash.lackey.xz"


def call(*args: object) -> Result:
    return CliRunner().invoke(main, ["mmu", *map(str, args)])


def good(*args: object) -> str:
    result = call(*args)
    assert (result.exit_code, result.stderr) == (0, ""), result.stderr
    return result.stdout


def refused(*args: object) -> str:
    """Call with bad input: exit code 2, one line on stderr, nothing on stdout."""
    result = call(*args)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("pyvirt: error: ")
    return result.stderr


@pytest.fixture(scope="module")
def events() -> Any:
    rng = np.random.default_rng(5)
    pages = rng.zipf(1.3, 30_000).astype(np.uint64) % np.uint64(1 << 20)
    vas = 0x5000_0000_0000 + (pages << np.uint64(12)) + rng.integers(0, 4096, 30_000, np.uint64)
    return traces.accesses(vas, rng.integers(1, 5, 30_000), 8)


@pytest.fixture(scope="module")
def path(events: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("mmu") / "trace.npy"
    traces.write(target, events)
    return target


@pytest.fixture(scope="module")
def two(events: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same accesses on two vCPUs."""
    target = tmp_path_factory.mktemp("mmu") / "two.npy"
    changed = events.copy()
    changed["vcpu"] = np.arange(len(events)) % 2
    traces.write(target, changed)
    return target


def counters(stats: Any) -> dict[str, Any]:
    return {name: stats[name].tolist() for name in stats.dtype.names}


@pytest.mark.parametrize(
    ("options", "system", "tlb"),
    [
        ([], {}, "reference"),
        (["--page", "2M", "--tlb", "zen4", "--levels", "5"], {"page": "2M", "levels": 5}, "zen4"),
        (["--mode", "nested", "--host-page", "2M"], {"nested": True, "host_page": "2M"}, None),
        (
            ["--mode", "nested", "--nested-format", "npt", "--page", "2M", "--tlb", "Skylake-SP"],
            {"nested": True, "nested_format": "npt", "page": "2M"},
            "skylake-sp",
        ),
    ],
)
def test_json_has_the_counters(
    path: Path, events: Any, options: list[str], system: dict[str, Any], tlb: str | None
):
    found = json.loads(good(path, "--json", *options))
    mapper = DemandMapper(**system)
    if "levels" in system:
        mapper = DemandMapper(**system, nested_levels=5)
    simulated = mapper.mmu(tlb=tlb or "reference")
    simulated.run(mapper.prepare(events))
    assert found["counters"] == counters(simulated.stats())
    assert found["first_touches"] == {
        "page_faults": mapper.page_faults,
        "nested_faults": mapper.nested_faults,
    }
    assert found["events"] == len(events)
    assert found["tlb"] == (tlb or "reference")
    assert found["summary"]["faults"] == 0
    assert "cycles" not in found


def test_tlb_only(path: Path, events: Any):
    found = json.loads(good(path, "--json", "--mode", "tlb-only", "--tlb", "champsim"))
    simulated = pv.MMU("tlb-only", tlb="champsim")
    simulated.run(events)
    assert found["counters"] == counters(simulated.stats())
    assert "page" not in found
    assert "first touches" not in good(path, "--mode", "tlb-only")


def test_parts_of_a_trace(path: Path, events: Any):
    for options, part in (
        (["--limit", 1000], events[:1000]),
        (["--skip", 500, "--limit", 1000], events[500:1500]),
        (["--skip", 29_000], events[29_000:]),
        (["--limit", 0], events[:0]),
        (["--skip", 100_000], events[:0]),
        (["--only", "data"], events[events["op"] != Op.FETCH]),
        (["--only", "code"], events[events["op"] == Op.FETCH]),
    ):
        found = json.loads(good(path, "--json", "--mode", "tlb-only", *options))
        simulated = pv.MMU("tlb-only")
        simulated.run(part)
        assert found["counters"] == counters(simulated.stats())
        assert found["events"] == len(part)


def test_vcpus(two: Path):
    assert "give --vcpus" in refused(two)
    found = json.loads(good(two, "--json", "--vcpus", 2, "--mode", "nested"))
    assert found["summary"]["accesses"] >= 30_000


def test_user(path: Path, tmp_path: Path):
    target = tmp_path / "short.din"
    target.write_text("0 1000\n1 2000\n2 3000\n")
    plain, user = (json.loads(good(target, "--json", *more)) for more in ([], ["--user"]))
    assert plain["counters"] == user["counters"]


def test_tables_for_people(path: Path):
    output = good(path, "--mode", "nested", "--cost", "sagepte|adams-agesen-2006")
    for text in ("nested, reference, pages of 4K on 4K", "L1 TLB", "L2 TLB", "walk", "nested TLB"):
        assert text in output
    assert "\x1b" not in output
    found = json.loads(
        good(path, "--mode", "nested", "--cost", "sagepte|adams-agesen-2006", "--json")
    )
    summary = found["summary"]
    assert f"{summary['misses']:,} ({summary['miss_ratio']:.4%})" in output
    assert f"{found['cycles']['total']:,.0f}" in output
    touches = found["first_touches"]
    assert f"{touches['page_faults']:,} page faults, {touches['nested_faults']:,} nested" in output


def test_cycles_have_the_first_touches(path: Path):
    found = json.loads(
        good(path, "--mode", "nested", "--cost", " sagepte | adams-agesen-2006", "--json")
    )
    model = pv.CostModel("sagepte") | pv.CostModel("adams-agesen-2006")
    touches = found["first_touches"]
    expected = model.cycles(found["counters"] | {"ept_violations": touches["nested_faults"]})
    assert found["counters"]["ept_violations"] == 0
    assert found["cycles"]["total"] == expected.total
    assert found["cycles"]["by_class"] == expected.breakdown
    assert found["cycles"]["by_group"] == expected.groups
    assert found["cycles"]["model"] == model.name


def test_a_page_size_that_no_tlb_holds_is_told(path: Path):
    note = "no TLB of reference holds pages of 2M"
    assert note in good(path, "--page", "2M", "--limit", 100)
    assert note not in good(path, "--page", "2M", "--limit", 100, "--tlb", "zen4")
    assert note not in good(path, "--limit", 100)


def test_sweep(path: Path, events: Any):
    found = json.loads(good(path, "--sweep", "--json"))
    expected = sweep(events)
    assert found["accesses"] == expected.accesses
    assert [tuple(row.values()) for row in found["tlbs"]] == expected.table.tolist()
    assert list(found["tlbs"][0]) == list(expected.table.dtype.names)
    found = json.loads(good(path, "--sweep", "--json", "--page", "2M", "--only", "data"))
    expected = sweep(events, page_shift=21, kinds=("load", "store"))
    assert [tuple(row.values()) for row in found["tlbs"]] == expected.table.tolist()


def test_sweep_for_people(path: Path, events: Any):
    output = good(path, "--sweep")
    expected = sweep(events)
    for entries, ways in ((64, 4), (1536, 12), (4096, 16)):
        (row,) = expected.table[
            (expected.table["entries"] == entries) & (expected.table["ways"] == ways)
        ]
        (line,) = (x for x in output.splitlines() if x.split()[:1] == [f"{entries:,}"])
        assert f"{row['miss_ratio']:.6f}" in line


@pytest.mark.parametrize("ending", ["png", "svg"])
def test_plots(path: Path, tmp_path: Path, ending: str):
    pytest.importorskip("matplotlib")
    for more in (["--cost", "champsim"], ["--sweep"]):
        target = tmp_path / f"{len(more)}.{ending}"
        good(path, "--plot", target, *more)
        assert target.stat().st_size > 1000


def test_a_plot_without_matplotlib(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert "pyvirt[plot]" in refused(path, "--plot", tmp_path / "a.png", "--sweep")


def test_list_presets():
    output = good("--list-presets")
    found = json.loads(good("--list-presets", "--json"))
    assert list(found["tlb"]) == presets.names()
    assert list(found["cost"]) == costs.names()
    for name in (*found["tlb"], *found["cost"]):
        assert f"  {name} " in output


def test_bad_input(path: Path, tmp_path: Path):
    assert "zen4" in refused(path, "--tlb", "zem4")
    assert "sagepte" in refused(path, "--cost", "sage-pte")
    assert "sagepte" in refused(path, "--cost", "sagepte|")
    assert "TRACE" in refused()
    assert ".png" in refused(path, "--sweep", "--plot", tmp_path / "a.gif")
    assert "tlb-only" in refused(path, "--mode", "tlb-only", "--page", "4K")
    assert "--mode nested" in refused(path, "--host-page", "2M")
    assert "--mode nested" in refused(path, "--nested-format", "npt", "--mode", "native")
    refused(path, "--page", "8K")
    refused(path, "--vcpus", 0)
    refused(path, "--mode", "shadow")
    refused(tmp_path / "nothing.npy")
    for name, value in zip(
        RUN_ONLY, ["native", "zen4", "sagepte", "4K", "ept", "4", 1], strict=True
    ):
        option = f"--{name.replace('_', '-')}"
        assert f"--sweep does not take {option}" in refused(path, "--sweep", option, value)


def test_a_damaged_trace_is_named(tmp_path: Path):
    target = tmp_path / "bad.din"
    target.write_text("2 401000\n0 7ffe0010\n7 7ffe0018\n")
    for more in ([], ["--sweep"], ["--mode", "tlb-only"]):
        message = refused(target, *more)
        assert "line 3" in message
        assert "bad.din" in message


def test_events_of_other_tables_are_refused(events: Any, tmp_path: Path):
    changed = events[:100].copy()
    changed["op"][42] = Op.STORE_TABLE
    target = tmp_path / "edits.npy"
    traces.write(target, changed)
    assert "event 42 is STORE_TABLE" in refused(target)


def test_context_switches(events: Any, tmp_path: Path):
    changed = events[:1000].copy()
    changed["op"][::100] = Op.MOV_CR3
    changed["value"][::100] = np.arange(10) % 2 + 1 << 12
    target = tmp_path / "switches.npy"
    traces.write(target, changed)
    found = json.loads(good(target, "--json"))
    assert found["counters"]["invalidations"][1] == 10
    assert found["counters"]["faults"] == [0] * 16


@pytest.mark.skipif(not SHIPPED.exists(), reason="the documentation is not there")
def test_the_shipped_trace_and_compression(tmp_path: Path):
    short = tmp_path / "short.lackey"
    with lzma.open(SHIPPED) as stream:
        short.write_bytes(b"".join(stream.readline() for _ in range(2000)))
    a = json.loads(good(SHIPPED, "--limit", 1000, "--json"))
    b = json.loads(good(short, "--limit", 1000, "--json", "--from", "lackey"))
    assert a["counters"] == b["counters"]


def test_help_repeats_what_the_package_has():
    sizes = {parameter.name: parameter for parameter in mmu.params}
    for name in ("page", "host_page"):
        assert list(sizes[name].type.choices) == list(SHIFTS)  # type: ignore[attr-defined]
    assert {name for name in RUN_ONLY if name in sizes} == set(RUN_ONLY)
