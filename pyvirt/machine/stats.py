"""What a host and its virtual machines did, in the columns of esxtop."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from pyvirt.errors import InvalidTypeError, InvalidValueError
from pyvirt.machine.vmm import Counted

__all__ = ["CPU_COLUMNS", "HostStats"]

#: Columns of the CPU, and what they are made of.
CPU_COLUMNS = {
    "%USED": ("used", "device_run"),
    "%RUN": ("run",),
    "%SYS": ("device_run",),
    "%WAIT": ("wait",),
    "%RDY": ("rdy", "mlmtd"),
    "%IDLE": ("idle",),
    "%CSTP": ("cstp",),
    "%MLMTD": ("mlmtd",),
    "%SWPWT": ("swpwt",),
}
NAMES = ("run", "rdy", "mlmtd", "cstp", "wait", "idle", "swpwt", "used", "elapsed", "device_run")


@dataclass(frozen=True)
class HostStats:
    """Counters of a host at some time, or between two times.

    Attributes
    ----------
    host : str
        Its name.
    begin_ns, end_ns : int
        The interval.
    vms : dict of str to Counted
        Time of the worlds of each virtual machine that is on at its end, within it.
    cpu_run_ns : ndarray of int64
        Time in which each CPU ran some world.
    memory : dict of str to dict of str to float
        esxtop's memory columns by virtual machine, in MiB, MiB/s and per cent.
    host_memory : dict of str to object
        Pages in all and free, and the state.
    """

    host: str
    begin_ns: int
    end_ns: int
    vms: dict[str, Counted]
    cpu_run_ns: npt.NDArray[np.int64]
    memory: dict[str, dict[str, float]] = field(default_factory=dict)
    host_memory: dict[str, Any] = field(default_factory=dict)
    _totals: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def interval_ns(self) -> int:
        """Its length."""
        return self.end_ns - self.begin_ns

    @property
    def table(self) -> npt.NDArray[np.void]:
        """A row for each virtual machine: NAME, NWLD, and the columns of the CPU.

        Percentages of the interval, vCPUs added up, so that n of them reach n times 100 %.
        %RDY contains %MLMTD, and %WAIT contains %IDLE and %SWPWT: %RUN + %RDY + %CSTP + %WAIT is
        100 for each vCPU. %SYS is the time of the worlds that serve the machine's devices, and is
        part of %USED. NWLD counts vCPUs and these.
        """
        width = max((len(name) for name in self.vms), default=1)
        dtype: list[tuple[str, str]] = [("NAME", f"U{width}"), ("NWLD", "<i8")]
        dtype += [(name, "<f8") for name in CPU_COLUMNS]
        made = np.zeros(len(self.vms), np.dtype(dtype))
        for row, (name, counted) in zip(made, self.vms.items(), strict=True):
            row["NAME"], row["NWLD"] = name, counted.worlds
            for column, parts in CPU_COLUMNS.items():
                total = sum(getattr(counted, part) for part in parts)
                row[column] = 100.0 * total / self.interval_ns if self.interval_ns else 0.0
        return made

    def percent(self, vm: str, column: str) -> float:
        """Give a column of the CPU for one virtual machine.

        Raises
        ------
        InvalidValueError
            A machine or a column that is not there.
        """
        if vm not in self.vms:
            there = ", ".join(self.vms) or "none"
            raise InvalidValueError(f"no VM is called {vm!r:.80}; there are {there:.200}")
        if column not in CPU_COLUMNS:
            raise InvalidValueError(
                f"column must be one of {', '.join(CPU_COLUMNS)}, got {column!r:.80}"
            )
        if not self.interval_ns:
            return 0.0
        total = sum(getattr(self.vms[vm], part) for part in CPU_COLUMNS[column])
        return 100.0 * total / self.interval_ns

    @property
    def utilisation(self) -> float:
        """Part of the CPUs' time in which they ran something, from 0 to 1."""
        time = self.interval_ns * len(self.cpu_run_ns)
        return float(self.cpu_run_ns.sum() / time) if time else 0.0

    def __str__(self) -> str:
        columns = list(CPU_COLUMNS)
        shown = [["NAME", "NWLD", *columns]]
        for row in self.table:
            shown.append([str(row["NAME"]), str(row["NWLD"]), *(f"{row[c]:.2f}" for c in columns)])
        widths = [max(len(line[i]) for line in shown) for i in range(len(shown[0]))]
        lines = []
        for line in shown:
            cells = [line[0].ljust(widths[0])]
            cells += [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]
            lines.append("  ".join(cells))
        return "\n".join(lines)


def since(now: HostStats, before: HostStats | None) -> HostStats:
    """Give what happened after an earlier reading."""
    if before is None:
        return now
    if not isinstance(before, HostStats):
        raise InvalidTypeError(f"since must be a HostStats, got {before!r:.80}")
    if before.host != now.host or before.end_ns > now.end_ns:
        raise InvalidValueError(
            f"since must be an earlier reading of host {now.host!r:.80}, got one of "
            f"{before.host!r:.80} at {before.end_ns:,} ns"
        )
    vms = {}
    for name, counted in now._totals["vms"].items():
        old = before._totals["vms"].get(name)
        # the same name may be another machine: one that was powered on since then
        if old is None or now._totals["keys"][name] != before._totals["keys"][name]:
            vms[name] = counted
            continue
        made = Counted(worlds=counted.worlds)
        for part in NAMES:
            setattr(made, part, getattr(counted, part) - getattr(old, part))
        vms[name] = made
    return HostStats(
        now.host,
        before.end_ns,
        now.end_ns,
        vms,
        now._totals["cpu_run_ns"] - before._totals["cpu_run_ns"],
        now.memory,
        now.host_memory,
        now._totals,
    )
