r"""A host's part of a run in the form of esxtop's batch mode.

Names are those of esxtop's own files, as public tools that read them show: ``Group Cpu`` and
``Physical Cpu`` as in `pyvirt.sched.write_esxtop`; ``Memory\Machine MBytes``, ``Memory\Free
MBytes`` and ``Memory\Memctl Current MBytes``; of ``Group Memory`` ``Memory Size MBytes``,
``Memory Granted Size MBytes``, ``Touched MBytes``, ``Compressed Memory MBytes`` and ``Swapped
MBytes``; ``Memctl MBytes`` and ``Shared MBytes`` are recalled.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TextIO

import numpy as np
import numpy.typing as npt

from pyvirt.machine.scenario.result import Result
from pyvirt.report.run_tables import PAGES_OF_MIB, check_result
from pyvirt.sched.esxtop import esxtop_name, write_columns

__all__ = ["write_run_esxtop"]

Floats = npt.NDArray[np.float64]

#: esxtop's counters of a group, in its order: what is added up, and what is taken away.
CPU: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "% Used": (("run_ns", "device_run_ns"), ()),
    "% Run": (("run_ns",), ()),
    "% System": (("device_run_ns",), ()),
    "% Wait": (("wait_ns",), ()),
    "% VmWait": (("wait_ns",), ("idle_ns",)),
    "% Ready": (("ready_ns", "limited_ns"), ()),
    "% Idle": (("idle_ns",), ()),
    "% Overlap": ((), ()),
    "% CoStop": (("costop_ns",), ()),
    "% Max Limited": (("limited_ns",), ()),
    "% Swap Wait": (("swap_wait_ns",), ()),
}
MEMORY = {
    "Memory Granted Size MBytes": "mapped_pages",
    "Touched MBytes": "active_pages",
    "Memctl MBytes": "balloon_pages",
    "Swapped MBytes": "swapped_pages",
    "Compressed Memory MBytes": "compressed_pages",
    "Shared MBytes": "shared_pages",
}


def write_run_esxtop(file: TextIO, result: Result, host: str) -> None:
    """Write what a host and the virtual machines on it did, as esxtop's batch mode does.

    Parameters
    ----------
    file : text file
        Where to.
    result : Result
        Of a run.
    host : str
        One of its hosts.

    Notes
    -----
    A row stands at the end of its sample, the year 2000 being the start. Percentages are of the
    sample; a virtual machine has all that it did in a sample on the host where it is at its end,
    and empty fields where it is not on that host then. Fields of a host that was not on, or has no
    memory manager, are empty, too. Groups have the numbers of the virtual machines in the
    scenario, from 1.
    """
    check_result(result)
    result.host(host)
    write_columns(file, _columns(result, host), result.times_ns, host=host)


def _columns(result: Result, host: str) -> Iterator[tuple[str, Floats]]:
    h = result.host_names.index(host)
    mine = result.host(host)
    managed = (mine["memory_state"] >= 0) & (mine["on_ns"] > 0)
    here = result.vms["host"] == h
    rows = np.flatnonzero(here.any(axis=1)).tolist()
    yield "Memory\\Machine MBytes", np.where(managed, mine["total_pages"] / PAGES_OF_MIB, np.nan)
    yield "Memory\\Free MBytes", np.where(managed, mine["free_pages"] / PAGES_OF_MIB, np.nan)
    balloons = (result.vms["balloon_pages"] * here).sum(axis=0) / PAGES_OF_MIB
    yield "Memory\\Memctl Current MBytes", np.where(managed, balloons, np.nan)
    used = 100.0 * result.utilisation[h]
    yield "Physical Cpu(_Total)\\% Util Time", np.where(mine["on_ns"] > 0, used, np.nan)
    described = {vm.name: vm for vm in result.spec.cluster.vms}
    for v in rows:
        name = result.vm_names[v]
        group = f"{v + 1}:{esxtop_name(name)}"
        vcpus = described[name].vcpus if name in described else 0
        yield f"Group Cpu({group})\\Members", np.where(here[v], float(vcpus), np.nan)
        for counter, (plus, minus) in CPU.items():
            time = np.zeros(len(result.times_ns), np.int64)
            time += sum(result.vms[part][v] for part in plus)
            time -= sum(result.vms[part][v] for part in minus)
            yield (
                f"Group Cpu({group})\\{counter}",
                np.where(here[v], 100.0 * time / result.intervals_ns, np.nan),
            )
    for v in rows:
        name = result.vm_names[v]
        group = f"{v + 1}:{esxtop_name(name)}"
        size = described[name].memory / 2**20 if name in described else np.nan
        yield f"Group Memory({group})\\Memory Size MBytes", np.where(here[v], size, np.nan)
        for counter, column in MEMORY.items():
            pages = result.vms[column][v] / PAGES_OF_MIB
            yield f"Group Memory({group})\\{counter}", np.where(here[v], pages, np.nan)
