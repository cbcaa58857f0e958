"""Virtual machines whose workload is a program: executed once by their monitor, then scheduled."""

from __future__ import annotations

import functools
from pathlib import Path

from pyvirt.errors import InvalidValueError
from pyvirt.machine.executed import GuestRun, guest_images, run_guest
from pyvirt.machine.modes import MonitorMode
from pyvirt.machine.techniques import EventCosts, Execution
from pyvirt.spec import GuestProgramSpec, VMSpec
from pyvirt.x86.guests import kernel_disk
from pyvirt.x86.monitor import TECHNIQUES

__all__ = ["WAYS", "demand_mhz", "execute", "forget"]

#: How a guest is executed in each mode: technique and paging.
WAYS = {
    MonitorMode.BT: ("translation", "shadow"),
    MonitorMode.HV: ("hardware", "shadow"),
    MonitorMode.HWMMU: ("hardware", "nested"),
    MonitorMode.PV: ("paravirtual", "direct"),
}
#: Cycles in which a program must come to its end.
BUDGET = 10**9
NATIVE = ("native", "")


def demand_mhz(spec: VMSpec) -> float:
    """Give what a machine's program demands without a monitor: a cycle for each instruction.

    Parameters
    ----------
    spec : VMSpec
        With a guest program as its workload.

    Returns
    -------
    float
        MHz: the program's instructions, natively, times its runs a second.
    """
    guest = _guest(spec)
    return _run(spec, NATIVE, None).ending.instructions * guest.runs_per_s / 1e6


def execute(
    spec: VMSpec, mode: MonitorMode, costs: EventCosts, mhz: float
) -> tuple[Execution, GuestRun, float]:
    """Execute a machine's program in a mode, and price it.

    Parameters
    ----------
    spec : VMSpec
        With a guest program as its workload.
    mode : MonitorMode
        How the machine is executed.
    costs : EventCosts
        What events cost there.
    mhz : float
        Of the processor.

    Returns
    -------
    (Execution, GuestRun, float)
        Rates and cycles are those of a second of guest CPU time in which the program runs again and
        again; the overhead is that of one run, over its instructions without a monitor, which are
        the third. What a paravirtual port has more instructions is overhead, too (``port``).

    Raises
    ------
    InvalidValueError
        There is no such monitor, the program has no port that it needs, or comes to no end.
    OSError
        A file of it cannot be read.

    Notes
    -----
    A program is executed once in a process for each mode and cost table: its image, disk, memory
    and command line decide what happens, and nothing is random. The guest's own cycles are its
    instructions; see the caveat of `pyvirt.machine.price`.
    """
    way = WAYS[mode]
    if way[0] not in TECHNIQUES:
        raise InvalidValueError(
            f"a guest program in mode {mode.value} of VM {spec.name!r:.80} needs the technique "
            f"{way[0]}, and there are {', '.join(TECHNIQUES)}"
        )
    native, found = _run(spec, NATIVE, None), _run(spec, way, costs)
    assert found.counts is not None
    assert found.priced is not None
    own = native.ending.instructions
    a_second = mhz * 1e6 / own
    cycles = dict(found.priced.cycles)
    more = found.ending.instructions - own
    if more > 0:
        cycles["port"] = float(more)
    return (
        Execution(
            costs.name,
            {event: count * a_second for event, count in found.counts.events.items() if count},
            {event: part * a_second for event, part in cycles.items()},
            sum(cycles.values()) / own,
        ),
        found,
        float(own),
    )


def forget() -> None:
    """Forget what was executed, for instance to measure time."""
    _executed.cache_clear()


def _guest(spec: VMSpec) -> GuestProgramSpec:
    assert spec.workload is not None
    assert spec.workload.guest is not None
    return spec.workload.guest


def _run(spec: VMSpec, way: tuple[str, str], costs: EventCosts | None) -> GuestRun:
    """Execute a machine's program, or remember it."""
    guest = _guest(spec)
    images = guest_images(guest.image or "kernel")
    if guest.port:
        images["paravirtual"] = Path(guest.port).read_bytes()
    kind = "paravirtual" if way[0] == "paravirtual" else "native"
    if kind not in images:
        raise InvalidValueError(
            f"port of the guest program of VM {spec.name!r:.80} must name a kernel that was ported "
            f"to the paravirtual monitor, got none; {guest.image!r:.80} does not run there"
        )
    disk = None
    if guest.disk:
        disk = Path(guest.disk).read_bytes()
    elif "paravirtual" in images and not guest.port:
        disk = kernel_disk()
    found = _executed(images[kind], way, guest.memory, disk, guest.append, costs)
    if found.ending.why not in ("exit", "reset", "halt"):
        raise InvalidValueError(
            f"guest program of VM {spec.name!r:.80} must come to its end within {BUDGET} cycles, "
            f"got {found.ending.why!r} {found.name}"
        )
    return found


@functools.lru_cache(maxsize=64)
def _executed(
    image: bytes,
    way: tuple[str, str],
    memory: int,
    disk: bytes | None,
    append: str,
    costs: EventCosts | None,
) -> GuestRun:
    technique, paging = way
    return run_guest(
        {"native": image, "paravirtual": image},
        technique,
        paging=paging or None,
        costs=costs,
        memory=memory,
        disk=disk,
        command_line=append,
        budget=BUDGET,
    )
