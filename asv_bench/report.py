"""Run all benchmarks once, in one process, and print one table: the figures with their targets.

    python asv_bench/report.py [PATTERN] [--json FILE]

The benchmarks are those that asv runs. PATTERN is a regular expression for ``Class.method``.
"""

import argparse
import importlib
import json
import operator
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from benchmarks import cloop, data
from benchmarks.base import OnImages
from benchmarks.timing import seconds

import pyvirt

MODULES = [
    "translate", "nested", "images", "imports", "mmu", "reuse", "shadow", "tables", "guest",
    "entitlement", "sched", "sched_policies", "cluster_ha", "cluster_migration", "paths",
    "machine", "scenario", "cluster_place", "cluster_traces", "cluster_replay",
    "cluster_drs", "hostmem", "protection", "decode", "interp", "monitors",
    "monitor_events", "deprivileged_events",
]  # fmt: skip
RELATIONS = {
    ">=": operator.ge,
    "<=": operator.le,
    "<": operator.lt,
}


class Row(NamedTuple):
    """One figure."""

    name: str
    parameter: str
    figure: str
    target: str
    verdict: str
    value: float | None


def scaled(value: float) -> str:
    """Write seconds in a unit that reads well."""
    if value >= 1:
        return f"{value:.3g} s"
    return f"{value * 1e3:.3g} ms" if value >= 1e-3 else f"{value * 1e6:.3g} us"


def measure(benchmark, name: str, arguments: list) -> tuple[float, str]:
    """Run one benchmark; return its value and how to write it."""
    method = getattr(benchmark, name)
    if name.startswith("track_"):
        value = float(method(*arguments))
        digits = f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
        return value, f"{digits} {method.unit}"
    times: list[float] = []
    end = time.perf_counter() + 0.5
    while len(times) < 3 or (len(times) < 41 and time.perf_counter() < end):
        times.append(seconds(lambda: method(*arguments)))
    value = statistics.median(times)
    text = scaled(value)
    if hasattr(benchmark, "addresses"):
        text += f" = {benchmark.addresses / value / 1e6:.0f} M/s"
    return value, text


def verdict(method, parameter: str, value: float) -> tuple[str, str]:
    """Compare a value with the target that its benchmark names."""
    relation, bound = getattr(method, "target", ("", None))
    if isinstance(bound, dict):
        bound = bound.get(parameter)
    if bound is None:
        return "", ""
    # A time's target is in seconds, and is written as the time itself is.
    shown = scaled(bound) if method.__name__.startswith("time_") else f"{bound:g}"
    return f"{relation} {shown}", "ok" if RELATIONS[relation](value, bound) else "MISSED"


class Caches:
    """What each ``setup_cache`` returned: classes that share the function share its value."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._values: dict = {}

    def of(self, cls: type) -> list:
        """The first argument of the methods of `cls`, if it has a ``setup_cache``."""
        function = getattr(cls, "setup_cache", None)
        if function is None:
            return []
        if function not in self._values:
            home = Path.cwd()
            os.chdir(self._folder)  # as asv does: files go into the working directory
            try:
                self._values[function] = function(cls())
            finally:
                os.chdir(home)
        return [self._values[function]]


def run(cls: type, caches: Caches, wanted: re.Pattern) -> Iterator[Row]:
    """Run the benchmarks of one class; a skip gives its reason as the figure."""
    names = [n for n in dir(cls) if n.startswith(("time_", "track_"))]
    names = [n for n in names if wanted.search(f"{cls.__name__}.{n}")]
    if not names:
        return
    for parameter in getattr(cls, "params", [None]):
        benchmark = cls()
        arguments = caches.of(cls)
        arguments += [] if parameter is None else [parameter]
        label = parameter or ""
        try:
            if hasattr(benchmark, "setup"):
                benchmark.setup(*arguments)
        except NotImplementedError as reason:
            yield Row(cls.__name__, label, f"skipped: {reason}", "", "", None)
            continue
        for name in names:
            full = f"{cls.__name__}.{name}"
            try:
                value, figure = measure(benchmark, name, arguments)
            except NotImplementedError as reason:
                yield Row(full, label, f"skipped: {reason}", "", "", None)
                continue
            yield Row(full, label, figure, *verdict(getattr(cls, name), label, value), value)


def processor() -> str:
    """The model name, where the system tells it."""
    try:
        found = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        found = None
    return found[1] if found else platform.processor() or platform.machine()


def compiler() -> str:
    """The first line of ``cc --version``, which names the C loop's compiler."""
    try:
        done = subprocess.run(["cc", "--version"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "no C compiler"
    return f"{done.stdout.splitlines()[0]}, {' '.join(cloop.FLAGS)}"


def main() -> int:
    """Print the table; the exit code is 1 if a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pattern", nargs="?", default="", help="regular expression, Class.method")
    parser.add_argument("--json", type=Path, help="write the figures to this file, too")
    options = parser.parse_args()
    wanted = re.compile(options.pattern)

    began = time.perf_counter()
    rows = []
    with tempfile.TemporaryDirectory(prefix="pyvirt-bench-") as folder:
        caches = Caches(folder)
        native = caches.of(OnImages)[0]["native"]
        print(f"pyvirt {pyvirt.__version__}, NumPy {np.__version__}, {platform.python_version()}")
        print(f"{processor()}, {os.cpu_count()} CPUs; {compiler()}")
        print(f"native set: {native.name if native else 'none'}; batch: {data.COUNT:,} addresses")
        print()
        print(f"{'benchmark':44} {'parameter':16} {'figure':52} {'target':10} verdict")
        for module in MODULES:
            for cls in vars(importlib.import_module(f"benchmarks.{module}")).values():
                if isinstance(cls, type) and cls.__module__ == f"benchmarks.{module}":
                    if cls.__name__.startswith("_"):
                        continue
                    for row in run(cls, caches, wanted):
                        rows.append(row)
                        line = f"{row.name:44} {row.parameter:16} {row.figure:52} {row.target:10}"
                        print(f"{line} {row.verdict}".rstrip(), flush=True)
        del caches, native
    missed = sum(row.verdict == "MISSED" for row in rows)
    met = sum(row.verdict == "ok" for row in rows)
    skipped = sum(row.value is None for row in rows)
    print()
    print(
        f"targets met: {met}, missed: {missed}; skipped: {skipped};"
        f" {time.perf_counter() - began:.0f} s"
    )
    if options.json:
        options.json.write_text(json.dumps([row._asdict() for row in rows], indent=1) + "\n")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
