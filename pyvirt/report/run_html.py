"""A run as one page for a browser: figures and tables, with nothing from elsewhere."""

from __future__ import annotations

import html
import json
from collections.abc import Callable
from importlib import resources
from typing import TYPE_CHECKING, Any

from pyvirt.machine.scenario.result import Result
from pyvirt.report import run_plots
from pyvirt.report.mmu import Cell, Table
from pyvirt.report.plots import require
from pyvirt.report.run_tables import (
    MIGRATED,
    check_result,
    kept_events,
    run_event_counts,
    run_event_table,
    run_host_table,
    run_monitor_table,
    run_vm_table,
    warmup_end_ns,
)
from pyvirt.report.svg import inline_svg
from pyvirt.units import format_time

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["run_html"]

MOST_ROWS = 200
#: Rows that are shown unasked.
MOST_OPEN = 24
MOST_SCENARIO = 100_000
#: A browser that heeds it loads nothing, whatever the page says.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
DECIMALS = {"kwh": 4, "execution_%": 2, "translation_%": 2, "overhead_%": 2, "value": 0}

#: Sections with a figure: name, title, what the figure shows, and who draws it.
FIGURES: tuple[tuple[str, str, str, Callable[[Result], Figure]], ...] = (
    (
        "utilisation",
        "Utilisation of hosts",
        "Part of a host's CPU time that was used while it was on.",
        run_plots.utilisation_plot,
    ),
    (
        "waiting",
        "What kept vCPUs from running",
        "Part of the time of the vCPUs while the VM was on; those VMs that waited longest.",
        run_plots.waiting_plot,
    ),
    (
        "memory",
        "Memory of hosts",
        "Free memory, and the state of the memory that decides what is reclaimed, and how.",
        run_plots.memory_plot,
    ),
    (
        "overhead",
        "Overhead of monitors",
        "By monitor mode and MMU, with the number of VMs; bars are means, a dot is one VM.",
        run_plots.overhead_plot,
    ),
    (
        "timeline",
        "What happened",
        "Where VMs were, their migrations, and what happened to hosts.",
        run_plots.timeline_plot,
    ),
    (
        "power",
        "Power",
        "Mean of each sample, hosts one upon the other.",
        run_plots.power_plot,
    ),
)


def run_html(result: Result) -> str:
    """Give a run as one page of HTML.

    Parameters
    ----------
    result : Result
        Of a run.

    Returns
    -------
    str
        With its figures and its style in it. It loads nothing and needs no script. The same result
        gives the same text.

    Raises
    ------
    MissingDependencyError
        If Matplotlib is not installed.
    """
    check_result(result)
    require()
    title = _text(result.spec.name)
    style = resources.files("pyvirt.report").joinpath("run_data", "report.css").read_text("utf-8")
    figures = {
        name: _figure(result, name, heading, text, draw) for name, heading, text, draw in FIGURES
    }
    sections = [
        _section("hosts", "Hosts", _hosts(result)),
        figures["utilisation"],
        figures["power"],
        _section("vms", "Virtual machines", _vms(result)),
        figures["waiting"],
        figures["memory"],
        figures["overhead"] if result.monitors else "",
        _section("monitors", "Monitors", _monitors(result)),
        figures["timeline"],
        _section("events", "Events", _events(result)),
        _section("provenance", "Where this comes from", _provenance(result)),
    ]
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<link rel="icon" href="data:,">
<style>
{style}</style>
</head>
<body>
<h1>{title}</h1>
{_facts(result)}
{_contents(result)}
{"".join(sections)}</body>
</html>
"""


def _facts(result: Result) -> str:
    begin = warmup_end_ns(result)
    warmup = f", of which the first {format_time(begin)} are left out of means" if begin else ""
    hosts, vms = len(result.host_names), len(result.vm_names)
    facts = {
        "simulated": format_time(result.duration_ns),
        "hosts": f"{hosts:,}",
        "virtual machines": f"{vms:,}",
        "energy": f"{result.energy_kwh:.3f} kWh",
        "migrations": f"{sum(e.what == MIGRATED for e in kept_events(result)):,}",
        "seed": str(result.provenance.get("seed", result.spec.seed)),
    }
    items = "".join(f"<div><dt>{_text(k)}</dt><dd>{_text(v)}</dd></div>" for k, v in facts.items())
    mode = _text(str(result.provenance.get("mode", result.spec.mode)))
    version = _text(str(result.provenance.get("version", "")))
    return (
        f"<p>pyvirt {version}, {mode} mode; {format_time(result.duration_ns)} in "
        f"{len(result.times_ns):,} samples{warmup}.</p>\n"
        f'<dl class="facts">{items}</dl>'
    )


def _contents(result: Result) -> str:
    places = {
        **{"hosts": "Hosts", "power": "Power", "vms": "Virtual machines", "memory": "Memory"},
        **{"overhead": "Overhead", "timeline": "Time line", "events": "Events"},
        **{"provenance": "Where this comes from"},
    }
    if not result.monitors:
        del places["overhead"]
    return "<nav>" + " ".join(f'<a href="#{k}">{v}</a>' for k, v in places.items()) + "</nav>"


def _section(name: str, title: str, content: str) -> str:
    return f'<section id="{name}">\n<h2>{title}</h2>\n{content}</section>\n'


def _figure(
    result: Result, name: str, title: str, text: str, draw: Callable[[Result], Figure]
) -> str:
    drawn = inline_svg(draw(result), f"{name}-figure", title, run_plots.PAPER)
    content = f'<figure><div class="wide">{drawn}</div><figcaption>{text}</figcaption></figure>\n'
    return _section(name, title, content)


def _hosts(result: Result) -> str:
    table = run_host_table(result)
    shown = [i for i, column in enumerate(table.columns) if column != "joules"]
    rows = tuple(tuple(row[i] for i in shown) for row in table.rows)
    return _table(Table(tuple(table.columns[i] for i in shown), rows))


def _vms(result: Result) -> str:
    table = run_vm_table(result)
    note = ""
    if len(table) > MOST_ROWS:
        ready = table.columns.index("%RDY")
        longest = sorted(table.rows, key=lambda row: -float(row[ready]))[:MOST_ROWS]
        note = f"<p>Those {MOST_ROWS} of {len(table):,} that were ready longest.</p>\n"
        table = Table(table.columns, tuple(longest))
    return (
        "<p>Times in per cent of the time in which the VM was on, its vCPUs added up; "
        f"%RDY contains %MLMTD.</p>\n{note}{_table(table)}"
    )


def _monitors(result: Result) -> str:
    table = run_monitor_table(result)
    made = _table(Table(table.columns, table.rows[-MOST_ROWS:]))
    if len(table) <= MOST_OPEN:
        return made
    which = f"All {len(table):,}" if len(table) <= MOST_ROWS else f"The last {MOST_ROWS}"
    return f"<details><summary>{which}, by time</summary>\n{made}</details>\n"


def _events(result: Result) -> str:
    counts, table = run_event_counts(result), run_event_table(result, last=MOST_ROWS)
    if not len(counts):
        return "<p>Nothing happened.</p>\n"
    every = sum(int(row["count"]) for row in counts)
    which = f"All {every:,}" if every <= MOST_ROWS else f"The last {MOST_ROWS} of {every:,}"
    return (
        f"{_table(counts)}<details><summary>{which}, by time</summary>\n{_table(table)}</details>\n"
    )


def _provenance(result: Result) -> str:
    known = dict(result.provenance)
    scenario, presets = known.pop("scenario", {}), known.pop("presets", {})
    rows = [(str(key), str(value)) for key, value in known.items()]
    made = _table(Table(("what", "value"), tuple(rows)))
    if presets:
        files = [(str(name), str(digest)) for name, digest in presets.items()]
        made += (
            "<details><summary>Files of figures that were used, with their SHA-256</summary>\n"
            f"{_table(Table(('file', 'sha256'), tuple(files)))}</details>\n"
        )
    written = json.dumps(scenario, indent=1, ensure_ascii=False, default=str)
    if len(written) > MOST_SCENARIO:
        return f"{made}<p>The scenario is too long for a page; provenance.json has it.</p>\n"
    return (
        f"{made}<details><summary>The scenario</summary>\n<pre>{_text(written)}</pre></details>\n"
    )


def _table(table: Table) -> str:
    """Give a table; columns of words stand left, numbers right."""
    words = [all(isinstance(row[i], str) for row in table.rows) for i in range(len(table.columns))]
    marks = [' class="word"' if word else "" for word in words]
    head = "".join(
        f'<th scope="col"{mark}>{_text(name)}</th>'
        for name, mark in zip(table.columns, marks, strict=True)
    )
    body = "".join(
        "<tr>"
        + "".join(
            f"<td{mark}>{_text(_cell(name, value))}</td>"
            for name, value, mark in zip(table.columns, row, marks, strict=True)
        )
        + "</tr>\n"
        for row in table.rows
    )
    return (
        f'<div class="wide"><table>\n<thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{body}</tbody></table></div>\n"
    )


def _cell(column: str, value: Cell) -> str:
    if isinstance(value, float):
        return f"{value:,.{DECIMALS.get(column, 1)}f}"
    return f"{value:,}" if isinstance(value, int) else value


def _text(value: Any) -> str:
    return html.escape(str(value))
