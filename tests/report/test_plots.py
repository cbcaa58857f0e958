"""Plots: what is drawn is what was given; a missing Matplotlib is told by name."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pyvirt as pv
from pyvirt.errors import InvalidTypeError, InvalidValueError, MissingDependencyError
from pyvirt.mmu.crossover import CrossoverMap, crossover
from pyvirt.mmu.mixes import Mix
from pyvirt.mmu.prices import Cycles
from pyvirt.mmu.sweep import sweep
from pyvirt.report import (
    comparison_bars,
    comparison_table,
    crossover_map,
    cycle_bars,
    miss_ratio_curves,
    save,
)


@pytest.fixture
def matplotlib() -> Any:
    return pytest.importorskip("matplotlib")


@pytest.fixture
def results() -> dict[str, Cycles]:
    model = pv.CostModel("mine", {"walk": 10, "page_fault": 500, "tlb_hit_1": 1})
    return {
        "one": model.cycles({"walks": [3, 0, 0], "page_faults": 2}),
        "two": model.cycles({"walks": [5, 0, 0], "tlb_hits": [9] + [0] * 20}),
    }


@pytest.fixture
def curve() -> Any:
    vas = np.random.default_rng(0).integers(0, 1 << 20, 5000, dtype=np.uint64)
    return sweep(vas).miss_ratio_curve()


def test_bars(matplotlib: Any, results: dict[str, Cycles]):
    (axes,) = cycle_bars(results).axes
    heights = {bars.get_label(): [bar.get_height() for bar in bars] for bars in axes.containers}
    assert heights == {"TLB hits": [0, 9], "walks": [30, 50], "exits": [1000, 0]}
    assert [label.get_text() for label in axes.get_xticklabels()] == ["one", "two"]
    tops = {bar.get_y() + bar.get_height() for bars in axes.containers for bar in bars}
    assert max(tops) == results["one"].total
    (axes,) = cycle_bars(results, accesses=10).axes
    assert axes.containers[-1][0].get_height() == 100


def test_bars_of_nothing_spent(matplotlib: Any):
    (axes,) = cycle_bars({"idle": pv.CostModel("none", {}).cycles({})}).axes
    assert not axes.containers


@pytest.fixture(scope="module")
def comparison() -> pv.Comparison:
    guest = Mix(pages=512, updates=0.01).guest()
    return pv.compare(guest.events(2000), guest.memory, cr3=guest.cr3, before=guest.before())


def test_bars_of_modes(matplotlib: Any, comparison: pv.Comparison):
    (axes,) = comparison_bars(comparison).axes
    assert [label.get_text() for label in axes.get_xticklabels()] == list(comparison.runs)
    for i, run in enumerate(comparison.runs.values()):
        heights = {bars.get_label(): bars[i].get_height() for bars in axes.containers}
        spent = {name: cycles for name, cycles in run.cycles.groups.items() if name in heights}
        expected = {name: n / comparison.accesses for name, n in spent.items()}
        assert heights == pytest.approx(expected)
        assert sum(spent.values()) == pytest.approx(run.cycles.total)
    colours = [bars[0].get_facecolor() for bars in axes.containers]
    assert len(set(colours)) == len(colours)


def test_table_of_modes(comparison: pv.Comparison):
    table = comparison_table(comparison)
    rows = {row[0]: row[1:] for row in table.rows}
    assert table.columns == ("", *comparison.runs)
    assert rows["exits"] == tuple(run.exits for run in comparison.runs.values())
    assert rows["  x_pf"][1] == comparison["shadow"].exits_by_reason["x_pf"]
    assert rows["overhead"] == tuple(comparison.overhead(mode) for mode in comparison.runs)
    assert "  x_io" not in rows


@pytest.fixture(scope="module")
def cells() -> CrossoverMap:
    return crossover([0, 1e-3, 1e-1], [0.02, 0.5], mix=Mix(pages=1024), accesses=1000)


def test_map(matplotlib: Any, cells: CrossoverMap):
    axes, bar = crossover_map(cells).axes
    (image,) = axes.images
    ratio = cells.ratio("shadow", "nested")
    assert np.allclose(image.get_array(), np.log2(ratio))
    low, high = image.get_clim()
    assert low == -high
    assert high == np.abs(np.log2(ratio)).max()
    assert [t.get_text() for t in axes.get_xticklabels()] == ["0", "1", "100"]
    assert len(axes.texts) == 6
    assert axes.texts[0].get_text() == f"{max(ratio[0, 0], 1 / ratio[0, 0]):.2g}"
    assert "shadow over nested" in bar.get_ylabel()
    # one row has no boundary to draw
    single = crossover([0, 0.1], [0.1], mix=Mix(pages=64), accesses=200, tlb=None)
    assert crossover_map(single, "nested", "shadow").axes


def test_curves(matplotlib: Any, curve: Any):
    (axes,) = miss_ratio_curves({"fully associative": curve}).axes
    (line,) = axes.lines
    assert line.get_xdata().tolist() == curve["entries"].tolist()
    assert line.get_ydata().tolist() == curve["miss_ratio"].tolist()
    assert line.get_label() == "fully associative"


@pytest.mark.parametrize("ending", ["png", "svg", "pdf", "PNG"])
def test_the_same_plot_is_the_same_file(matplotlib: Any, curve: Any, tmp_path: Path, ending: str):
    files = []
    for name in ("a", "b"):
        path = tmp_path / f"{name}.{ending}"
        save(miss_ratio_curves({"a curve": curve}), path)
        files.append(path.read_bytes())
    assert files[0] == files[1]
    magic = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[ending.lower()]
    assert files[0].startswith(magic)


def test_no_window_is_opened(matplotlib: Any, curve: Any):
    miss_ratio_curves({"a curve": curve})
    assert "matplotlib.pyplot" not in sys.modules


def test_bad_input(tmp_path: Path, curve: Any, results: dict[str, Cycles]):
    for function in (cycle_bars, miss_ratio_curves):
        with pytest.raises(InvalidValueError, match="empty"):
            function({})  # type: ignore[operator]
    with pytest.raises(InvalidTypeError, match="results"):
        cycle_bars({"a": 5})  # type: ignore[dict-item]
    with pytest.raises(InvalidTypeError, match="curves"):
        miss_ratio_curves({"a": np.zeros(3)})
    with pytest.raises(InvalidValueError, match="accesses"):
        cycle_bars(results, accesses=0)
    with pytest.raises(InvalidTypeError, match="comparison must be a Comparison"):
        comparison_bars(results)  # type: ignore[arg-type]
    with pytest.raises(InvalidTypeError, match="found must be a CrossoverMap"):
        crossover_map(results)  # type: ignore[arg-type]
    for name in ("plot", "plot.gif", "png"):
        with pytest.raises(InvalidValueError, match=r"\.png, \.svg, \.pdf"):
            save(None, tmp_path / name)  # type: ignore[arg-type]


def test_without_matplotlib(
    monkeypatch: pytest.MonkeyPatch, curve: Any, results: Any, comparison: Any, cells: Any
):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingDependencyError, match=r"pyvirt\[plot\]"):
        cycle_bars(results)
    with pytest.raises(MissingDependencyError, match=r"pyvirt\[plot\]"):
        miss_ratio_curves({"a curve": curve})
    with pytest.raises(MissingDependencyError, match=r"pyvirt\[plot\]"):
        comparison_bars(comparison)
    with pytest.raises(MissingDependencyError, match=r"pyvirt\[plot\]"):
        crossover_map(cells)


def test_reports_load_matplotlib_only_to_draw():
    code = "import sys, pyvirt.report; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
