"""Pictures of a run: utilisation, waiting, memory, overhead, what happened when, power.

Colours are names that a page replaces by its own, for light and dark paper: see `PAPER`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pyvirt.hostmem import MemoryState
from pyvirt.machine.scenario.result import Event, Result
from pyvirt.report.plots import _figure
from pyvirt.report.run_spans import vm_spans
from pyvirt.report.run_tables import MIGRATED, check_result

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    *("PAPER", "memory_plot", "overhead_plot", "power_plot", "timeline_plot"),
    *("utilisation_plot", "waiting_plot"),
]

#: Colours by what they are for. Series are Okabe and Ito's colours (Color Universal Design, 2008),
#: with the yellow darkened, which readers of all kinds of colour vision tell apart.
PAPER = {
    "paper": "#fffffe",
    "ink": "#1b1f25",
    "soft": "#5a636f",
    "grid": "#d9dde4",
    "mark": "#b3261f",
    **{
        f"c{i}": colour
        for i, colour in enumerate(
            ("#0072b3", "#d55e01", "#009e74", "#b85790", "#a67c01", "#3d9bd1", "#555b64", "#7b4fa4")
        )
    },
    # states of memory, from good to bad: one is darker than the other, too
    **{
        f"s{i}": colour
        for i, colour in enumerate(("#cfd6df", "#a9c7dd", "#d6a93e", "#c86a2f", "#7d1d23"))
    },
}
SERIES = [PAPER[f"c{i}"] for i in range(8)]
#: So that lines differ without colour, too.
DASHES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)), (0, (8, 3)))
MOST_LINES = 8
MOST_POINTS = 600
MOST_BARS = 12
MOST_ROWS = 24
HEIGHT_OF_ROW = 0.24
GIB_PAGES = 1 << 18


def utilisation_plot(result: Result) -> Figure:
    """Draw how much each host is used over time: lines, or a heat map of more than 8 hosts."""
    check_result(result)
    names = result.host_names
    on = result.hosts["on_ns"] > 0
    used = np.where(on, 100 * result.utilisation, np.nan)
    if len(names) > MOST_LINES:
        return _heat(result, used, "utilisation (% of CPU)")
    figure = _figure(8.0)
    axes = figure.subplots()
    _lines(axes, result, used, names)
    axes.set_ylabel("utilisation (% of CPU)")
    axes.set_ylim(0, max(100.0, float(np.nanmax(used, initial=0.0))))
    return _finish(figure, [axes], result, len(names))


def power_plot(result: Result) -> Figure:
    """Draw the power of all hosts over time, one upon the other (up to 8 of them), or their sum."""
    check_result(result)
    watts = result.hosts["joules"] / (result.intervals_ns / 1e9)
    figure = _figure(8.0)
    axes = figure.subplots()
    names = result.host_names
    if len(names) > MOST_LINES:
        watts, names = watts.sum(axis=0, keepdims=True), ("all hosts",)
    kilo = watts.sum(axis=0).max(initial=0.0) >= 10_000
    edges, values = _thinned(result, watts / 1000 if kilo else watts)
    unit = _unit(result)[0]
    base = np.zeros(values.shape[1])
    for i, name in enumerate(names):
        axes.stairs(
            base + values[i],
            edges / unit,
            baseline=base,
            fill=True,
            label=_label(name),
            facecolor=SERIES[i],
            edgecolor=PAPER["ink"],
            linewidth=0.4,
        )
        base = base + values[i]
    axes.set_ylim(bottom=0)
    axes.set_ylabel("power (kW)" if kilo else "power (W)")
    return _finish(figure, [axes], result, len(names))


def waiting_plot(result: Result, *, most: int = MOST_BARS) -> Figure:
    """Draw what kept the vCPUs of those VMs from running that waited longest.

    Parameters
    ----------
    result : Result
        Of a run; its warm-up is left out.
    most : int, default 12
        How many VMs at most.
    """
    check_result(result)
    kept = result.after_warmup()
    vcpus = {vm.name: vm.vcpus for vm in result.spec.cluster.vms}
    on = result.vms["on_ns"][:, kept].sum(axis=1, dtype=np.int64)
    whole = np.maximum(on * np.array([vcpus.get(name, 1) for name in result.vm_names]), 1)
    parts = {
        "ready": "ready_ns",
        "limited": "limited_ns",
        "co-stopped": "costop_ns",
        "waits for swapped pages": "swap_wait_ns",
    }
    shares = {
        label: 100 * result.vms[column][:, kept].sum(axis=1, dtype=np.int64) / whole
        for label, column in parts.items()
    }
    total = np.sum(list(shares.values()), axis=0)
    order = np.argsort(-total, kind="stable")[:most]
    figure = _figure(8.0)
    figure.set_size_inches(8.0, 1.4 + HEIGHT_OF_ROW * 1.3 * len(order))
    axes = figure.subplots()
    left = np.zeros(len(order))
    hatches = ("", "///", "...", "xxx")
    for i, (label, values) in enumerate(shares.items()):
        axes.barh(
            range(len(order)),
            values[order],
            0.7,
            left=left,
            label=label,
            color=SERIES[i],
            hatch=hatches[i],
            edgecolor=PAPER["ink"],
            linewidth=0.4,
        )
        left += values[order]
    _rows(axes, [result.vm_names[v] for v in order])
    axes.set_xlim(0, max(1.0, float(left.max(initial=0.0)) * 1.05))
    axes.set_xlabel("part of the vCPUs' time (%)")
    _dress(axes, "x")
    _legend(figure, len(parts))
    return figure


def memory_plot(result: Result) -> Figure:
    """Draw the free memory of hosts over time, and below it the states of their memory."""
    check_result(result)
    managed = (result.hosts["memory_state"] >= 0) & (result.hosts["on_ns"] > 0)
    free = np.where(managed, result.hosts["free_pages"] / GIB_PAGES, np.nan)
    chosen = np.flatnonzero(managed.any(axis=1))
    if len(chosen) > MOST_LINES:  # those that were shortest of memory
        shortest = np.nanmin(free[chosen] * GIB_PAGES / result.hosts["total_pages"][chosen], axis=1)
        chosen = np.sort(chosen[np.argsort(shortest, kind="stable")[:MOST_LINES]])
    names = [result.host_names[h] for h in chosen]
    figure = _figure(8.0)
    figure.set_size_inches(8.0, 3.6 + HEIGHT_OF_ROW * len(names))
    above, below = figure.subplots(
        2, 1, sharex=True, height_ratios=[3.0, max(0.4, HEIGHT_OF_ROW * len(names))]
    )
    _lines(above, result, free[chosen], names)
    above.set_ylabel("free memory (GiB)")
    above.set_ylim(bottom=0)
    shown = {int(state) for state in np.unique(result.hosts["memory_state"][managed])}
    for state in sorted(shown):
        stretches = [
            (row, _stretches(result, managed[h] & (result.hosts["memory_state"][h] == state)))
            for row, h in enumerate(chosen)
        ]
        for row, parts in stretches:
            below.broken_barh(
                parts,
                (row - 0.4, 0.8),
                facecolors=PAPER[f"s{state}"],
                label=f"state {MemoryState(state).name.lower()}" if not row else None,
            )
    _rows(below, names)
    below.set_ylabel("state")
    return _finish(figure, [above, below], result, len(names) + len(shown))


def overhead_plot(result: Result) -> Figure:
    """Draw what the monitor costs in each mode: bars for means, dots for virtual machines."""
    check_result(result)
    groups: dict[str, list[tuple[float, float]]] = {}
    for one in {(one.vm, one.mode, one.mmu): one for one in result.monitors}.values():
        costs = (100 * one.execution, 100 * one.translation)
        groups.setdefault(f"{one.mode}, {one.mmu}", []).append(costs)
    names = sorted(groups)
    figure = _figure(8.0)
    figure.set_size_inches(8.0, 1.5 + 0.5 * len(names))
    axes = figure.subplots()
    means = np.array([np.mean(groups[name], axis=0) for name in names]).reshape(-1, 2)
    common: dict[str, Any] = {"height": 0.6, "edgecolor": PAPER["ink"], "linewidth": 0.4}
    rows = np.arange(len(names))
    axes.barh(rows, means[:, 0], label="execution", color=SERIES[0], **common)
    axes.barh(
        rows,
        means[:, 1],
        left=means[:, 0],
        label="address translation",
        color=SERIES[1],
        hatch="///",
        **common,
    )
    for row, name in enumerate(names):
        totals = [sum(costs) for costs in groups[name]]
        axes.plot(
            totals,
            [row] * len(totals),
            "o",
            color=PAPER["ink"],
            markeredgecolor=PAPER["paper"],
            markersize=6,
            label="a VM" if not row else None,
        )
    _rows(axes, [f"{name} ({len(groups[name])})" for name in names])
    axes.set_xlabel("cycles of the monitor for 100 cycles of the guest")
    most = max((sum(costs) for group in groups.values() for costs in group), default=0.0)
    axes.set_xlim(0, max(1.05 * most, 0.1))
    _dress(axes, "x")
    _legend(figure, 3)
    return figure


def timeline_plot(result: Result, *, most: int = MOST_ROWS) -> Figure:
    """Draw where virtual machines were over time, and what happened to them and to hosts.

    Parameters
    ----------
    result : Result
        Of a run.
    most : int, default 24
        How many VMs at most: those with most events, in the order of the scenario.
    """
    check_result(result)
    unit = _unit(result)[0]
    happened: dict[str, list[Event]] = {}
    for event in result.events:
        happened.setdefault(event.vm, []).append(event)
    counts = np.array([len(happened.get(name, ())) for name in result.vm_names])
    chosen = np.sort(np.argsort(-counts, kind="stable")[:most])
    figure = _figure(8.0)
    figure.set_size_inches(8.0, 1.8 + HEIGHT_OF_ROW * 1.25 * len(chosen))
    axes = figure.subplots()
    # bars of no length: the hosts in their order in the legend
    for h in range(min(len(result.host_names), len(SERIES))):
        axes.barh(0, 0, color=SERIES[h], label=_host_label(result, h))
    named = {_host_label(result, h) for h in range(len(result.host_names))}
    for row, v in enumerate(chosen):
        name = result.vm_names[v]
        mine = happened.get(name, [])
        for span in vm_spans(result, int(v), mine):
            if span.state == "stunned":
                continue
            on = span.state == "on"
            label = _host_label(result, span.host) if on else span.state
            axes.broken_barh(
                [(span.begin_ns / unit, (span.end_ns - span.begin_ns) / unit)],
                (row - 0.36, 0.72),
                facecolors=SERIES[span.host % len(SERIES)] if on else "none",
                edgecolor=PAPER["mark"] if span.state == "down" else PAPER["ink"],
                linewidth=0.4 if on else 1.0,
                hatch="" if on else "////",
                label=None if label in named else label,
            )
            named.add(label)
        times = [event.time_ns / unit for event in mine if event.what == MIGRATED]
        axes.plot(
            times,
            [row] * len(times),
            "D",
            color=PAPER["ink"],
            markeredgecolor=PAPER["paper"],
            markersize=6,
            label=None if MIGRATED in named or not times else MIGRATED,
        )
        named |= {MIGRATED} if times else set()
    _host_marks(axes, result, unit, named)
    _rows(axes, [result.vm_names[v] for v in chosen])
    axes.set_ylim(len(chosen) - 0.4, -0.6)
    return _finish(figure, [axes], result, len(named))


def _host_marks(axes: Axes, result: Result, unit: float, named: set[str]) -> None:
    """Draw lines where a host came or went: all that happened to no virtual machine."""
    kinds = list(dict.fromkeys(e.what for e in result.events if e.host and not e.vm))
    for number, what in enumerate(kinds[: len(DASHES)]):
        times = sorted({e.time_ns for e in result.events if e.what == what and not e.vm})
        for at in times[:MOST_POINTS]:
            axes.axvline(
                at / unit,
                color=PAPER["mark"],
                linewidth=1.2,
                linestyle=DASHES[number],
                label=None if what in named else what,
            )
            named.add(what)


def _host_label(result: Result, h: int) -> str:
    """Name the hosts that have a colour."""
    if h < 0:
        return "no host"
    if len(result.host_names) <= len(SERIES):
        return f"on {_label(result.host_names[h])}"
    first = h % len(SERIES)
    same = result.host_names[first :: len(SERIES)]
    return f"on {_label(same[0])} and {len(same) - 1} more" if len(same) > 1 else f"on {same[0]}"


def _heat(result: Result, values: npt.NDArray[Any], label: str) -> Figure:
    """Draw a row of colours for each host."""
    edges, thin = _thinned(result, values)
    figure = _figure(8.0)
    figure.set_size_inches(8.0, min(9.0, 2.0 + 0.12 * len(thin)))
    axes = figure.subplots()
    axes.set_facecolor(PAPER["grid"])
    unit, word = _unit(result)
    # one length for all columns: the last may be shorter
    image = axes.imshow(
        thin,
        aspect="auto",
        interpolation="nearest",
        vmin=0,
        vmax=100,
        cmap="cividis",
        extent=(0, edges[-1] / unit, len(thin) - 0.5, -0.5),
    )
    bar = figure.colorbar(image, ax=axes)
    bar.set_label(label, color=PAPER["ink"])
    bar.ax.tick_params(colors=PAPER["ink"])
    bar.outline.set_edgecolor(PAPER["soft"])
    step = max(1, -(-len(thin) // MOST_ROWS))
    shown = range(0, len(thin), step)
    axes.set_yticks(list(shown), labels=[_label(result.host_names[h]) for h in shown])
    axes.set_xlabel(f"time ({word})")
    _dress(axes, None)
    return figure


def _lines(axes: Axes, result: Result, values: npt.NDArray[Any], names: Sequence[str]) -> None:
    edges, thin = _thinned(result, values)
    unit = _unit(result)[0]
    for i, name in enumerate(names):
        axes.stairs(
            thin[i],
            edges / unit,
            baseline=None,
            label=_label(name),
            color=SERIES[i],
            linestyle=DASHES[i],
            linewidth=1.4,
        )


def _thinned(result: Result, values: npt.NDArray[Any]) -> tuple[Any, npt.NDArray[Any]]:
    """Give edges in ns and means of so many samples that no more than `MOST_POINTS` are left."""
    edges = np.concatenate([[0], result.times_ns]).astype(np.float64)
    several = -(-values.shape[1] // MOST_POINTS)
    if several <= 1:
        return edges, values
    starts = np.arange(0, values.shape[1], several)
    known = np.isfinite(values)
    weights = known * result.intervals_ns
    sums = np.add.reduceat(np.where(known, values, 0.0) * weights, starts, axis=1)
    whole = np.add.reduceat(weights, starts, axis=1)
    means = np.divide(sums, whole, out=np.full(sums.shape, np.nan), where=whole > 0)
    return np.append(edges[starts], edges[-1]), means


def _stretches(result: Result, here: npt.NDArray[np.bool_]) -> list[tuple[float, float]]:
    """Give begin and length of each stretch of samples, in the plot's unit."""
    unit = _unit(result)[0]
    ends = result.times_ns / unit
    begins = (result.times_ns - result.intervals_ns) / unit
    change = np.diff(np.concatenate([[0], here.astype(np.int8), [0]]))
    first, last = np.flatnonzero(change == 1), np.flatnonzero(change == -1) - 1
    return [(begins[a], ends[b] - begins[a]) for a, b in zip(first, last, strict=True)]


def _unit(result: Result) -> tuple[float, str]:
    """Give a unit of time that fits the run, in ns, and its name."""
    for ns, word in ((86_400e9, "d"), (3600e9, "h"), (60e9, "min"), (1e9, "s"), (1e6, "ms")):
        if result.duration_ns >= 4 * ns:
            return ns, word
    return 1e3, "us"


def _finish(figure: Figure, panels: list[Axes], result: Result, entries: int) -> Figure:
    """Give time its axis, show the warm-up, and place the legend above."""
    unit, word = _unit(result)
    for axes in panels:
        axes.set_xlim(0, result.duration_ns / unit)
        if result.spec.warmup_ns:
            axes.axvspan(
                0,
                result.spec.warmup_ns / unit,
                facecolor=PAPER["grid"],
                alpha=0.6,
                zorder=-1,
                label="warm-up" if axes is panels[0] else None,
            )
        _dress(axes, "both" if axes is panels[0] and len(panels) > 1 else "x")
    panels[-1].set_xlabel(f"time ({word})")
    _legend(figure, entries + 1)
    return figure


def _dress(axes: Axes, grid: str | None) -> None:
    axes.set_axisbelow(True)
    if grid is not None:
        axes.grid(axis=grid, color=PAPER["grid"], linewidth=0.6)  # type: ignore[arg-type]
    axes.tick_params(colors=PAPER["ink"], labelcolor=PAPER["ink"])
    axes.xaxis.label.set_color(PAPER["ink"])
    axes.yaxis.label.set_color(PAPER["ink"])
    for side, spine in axes.spines.items():
        spine.set_color(PAPER["soft"])
        spine.set_visible(side in ("left", "bottom"))


def _legend(figure: Figure, entries: int) -> None:
    figure.legend(
        loc="outside upper left",
        ncols=min(max(1, entries), 5),
        frameon=False,
        fontsize=9,
        labelcolor=PAPER["ink"],
    )


def _rows(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), labels=[_label(name) for name in names])
    if not axes.yaxis_inverted():
        axes.invert_yaxis()


def _label(name: str) -> str:
    """Give a name for a plot: not too long, and nothing in it taken for mathematics."""
    cut = name if len(name) <= 24 else f"{name[:23]}…"
    # a label that begins so is none to a legend
    shown = f" {cut}" if cut.startswith("_") else cut
    return shown.replace("$", r"\$")
