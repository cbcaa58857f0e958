"""Named workloads: what whole programs do, in bounded memory and the same each time."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from pyvirt._core.physmem import PhysMem
from pyvirt.errors import FrameExhaustedError, InvalidTypeError, InvalidValueError
from pyvirt.guest import profiles
from pyvirt.guest.system import GuestOS, Initial

__all__ = ["WORKLOADS", "Workload"]

Numbers = dict[str, Any]
Rng = np.random.Generator
Steps = Iterator[None]

_PROFILE = "workloads"
_PAGE = 4096
_LOAD, _STORE, _FETCH = 1, 2, 3
_U64 = np.uint64


class Workload:
    """A stream of events in chunks, which can be run any number of times.

    Parameters
    ----------
    name : str
        One of `WORKLOADS`: ``"compile"`` (short processes: fork, exec, many first touches),
        ``"server"`` (context switches, buffers mapped and unmapped), ``"database"`` (a large
        resident set, touched at random), ``"static"`` (random loads of pages that are all
        mapped), ``"boot"`` (CPUID, port accesses, register loads, faults), ``"reclaim"`` (more
        pages than memory).
    memory : PhysicalMemory
        Empty; its size is the machine's. It is not written.
    events : int, default 1000000
        How many: the stream is cut there.
    chunk : int, default 65536
        Events in an array. The stream does not depend on it.
    rng : int, SeedSequence or Generator, default 0
        Of a Generator one number is drawn, here.
    parameters : dict, optional
        Instead of numbers in the profile ``"workloads"``.
    **options
        Of `GuestOS`: ``pcid``, ``kpti``, ``huge``, ``table_stores``, ...

    Attributes
    ----------
    name, parameters
        As in use.
    initial : Initial
        Registers that an engine must begin with.

    Raises
    ------
    InvalidValueError, InvalidTypeError
        For arguments that are not as described.
    FrameExhaustedError
        While it runs: memory is too small for it.

    Examples
    --------
    >>> import pyvirt as pv
    >>> from pyvirt.guest import Workload
    >>> stream = Workload("server", pv.PhysicalMemory("256MiB"), events=50_000)
    >>> machine = pv.Hypervisor(stream.boot_memory(), **stream.initial._asdict())
    >>> machine.run(stream)
    50000
    """

    def __init__(
        self,
        name: str,
        memory: PhysMem,
        *,
        events: int = 1_000_000,
        chunk: int = 1 << 16,
        rng: Any = 0,
        parameters: Numbers | None = None,
        **options: Any,
    ) -> None:
        if name not in WORKLOADS:
            near = difflib.get_close_matches(str(name), WORKLOADS, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise InvalidValueError(
                f"name must be one of {', '.join(WORKLOADS)}, got {name!r:.80}{hint}"
            )
        if not isinstance(memory, PhysMem):
            raise InvalidTypeError(f"memory must be a PhysicalMemory, got {memory!r:.80}")
        for value, what in ((events, "events"), (chunk, "chunk")):
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
                raise InvalidTypeError(f"{what} must be an integer, got {value!r:.80}")
            if not 1 <= value <= 1 << 48:
                raise InvalidValueError(f"{what} must be in [1, 2**48], got {value}")
        self.name = name
        self.parameters = profiles.numbers(_PROFILE, name)
        _check_parameters(parameters or {}, self.parameters)
        self.parameters |= parameters or {}
        self._events, self._chunk = int(events), int(chunk)
        try:
            if isinstance(rng, np.random.Generator):
                rng = int(rng.integers(1 << 63))
            self._seed = np.random.SeedSequence(rng) if isinstance(rng, int) else rng
            np.random.default_rng(self._seed)
        except (TypeError, ValueError) as error:
            raise InvalidTypeError(f"rng must be a seed or a Generator, got {rng!r:.80}") from error
        self._memory = memory.copy()
        self._options = options
        first = GuestOS(memory.copy(), **options)
        self.initial: Initial = first.initial
        self._boot = first.boot_memory()

    def boot_memory(self) -> Any:
        """Give a copy of memory as it is at the start, for one engine."""
        return self._boot.copy()

    def __iter__(self) -> Iterator[npt.NDArray[Any]]:
        """Make the stream, from its beginning."""
        system = GuestOS(self._memory.copy(), **self._options)
        rng = np.random.default_rng(self._seed)
        left = self._events
        for _ in WORKLOADS[self.name](system, rng, self.parameters):
            while system.pending >= min(self._chunk, left):
                chunk = system.take(min(self._chunk, left))
                left -= len(chunk)
                yield chunk
                if left == 0:
                    return

    def __repr__(self) -> str:
        return f"<Workload {self.name}, {self._events} events>"


def _check_parameters(given: Numbers, known: Numbers) -> None:
    for key, value in given.items():
        if key not in known:
            raise InvalidTypeError(
                f"unknown parameter {key!r:.80}; there are {', '.join(sorted(known))}"
            )
        if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
            raise InvalidTypeError(f"parameter {key} must be a number, got {value!r:.80}")
        if not 0 <= value < 1 << 40:
            raise InvalidValueError(f"parameter {key} must be in [0, 2**40), got {value}")


# --- parts ------------------------------------------------------------------------------------


def _places(start: int, indices: npt.NDArray[np.integer[Any]], rng: Rng) -> npt.NDArray[_U64]:
    """Addresses in pages, at some word of each."""
    words = rng.integers(0, 512, len(indices), dtype=_U64)
    return _U64(start) + indices.astype(_U64) * _U64(_PAGE) + words * _U64(8)


def _kinds(rng: Rng, count: int, stores: float) -> npt.NDArray[_U64]:
    """Loads, and stores among them."""
    kinds = np.full(count, _LOAD, _U64)
    if stores > 0:
        kinds[rng.random(count) < stores] = _STORE
    return kinds


def _start(system: GuestOS, process: int, area: int) -> int:
    return int(system.areas(process)["start"][area])


def _program(
    system: GuestOS,
    rng: Rng,
    process: int,
    text: int,
    text_pages: int,
    faults: int,
    file_faults: float,
    calls: int,
    accesses: int,
) -> Steps:
    """Exec a program that takes about so many faults, and between them goes over its pages."""
    own = max(1, int(faults * (1 - file_faults)))
    of_file = max(1, int(faults * file_faults))
    around = int(system.rules["fault_around"])
    system.exec(process, text=text, data=own, stack=32)
    code = _start(system, process, 0)
    data = _start(system, process, 1)
    windows = rng.permutation(max(1, text_pages // around))[:of_file] * around
    parts = max(1, min(own, calls // 4, 64))
    for part in range(parts):
        first, last = own * part // parts, own * (part + 1) // parts
        system.touch(process, _places(data, np.arange(first, last), rng), _STORE)
        window = windows[len(windows) * part // parts : len(windows) * (part + 1) // parts]
        if len(window):
            system.touch(process, _places(code, window, rng), _FETCH)
        seen = rng.integers(0, last, max(1, (last - first) * accesses // 2))
        system.touch(process, _places(data, seen, rng), _kinds(rng, len(seen), 0.3))
        known = windows[: max(1, len(windows) * (part + 1) // parts)]
        seen = rng.choice(known, len(seen))
        system.touch(process, _places(code, seen, rng), _FETCH)
        system.syscall(process, 4, times=calls // parts)
        yield


# --- workloads --------------------------------------------------------------------------------


def _compile(system: GuestOS, rng: Rng, p: Numbers) -> Steps:
    """A shell starts compilers one after the other, as make does."""
    text = system.file(int(p["text_pages"]))
    compiler = system.file(int(p["compiler_text_pages"]))
    programs = max(1, int(p["compiler_programs"]))
    make = system.spawn()
    common = (float(p["file_faults"]),)
    yield from _program(
        system,
        rng,
        make,
        text,
        int(p["text_pages"]),
        int(p["shell_faults"]),
        *common,
        int(p["shell_calls"]),
        int(p["accesses"]),
    )
    heap = _start(system, make, 1)
    written = min(int(p["shell_written"]), int(p["shell_faults"] * (1 - p["file_faults"])))
    while True:
        for number in range(programs):
            child = system.fork(make)
            # both write what they share, before the child becomes another program
            pages = rng.permutation(max(1, written))[: max(1, written // 2)]
            system.touch(make, _places(heap, pages, rng), _STORE)
            system.switch_to(child, 0, "syscall")
            system.touch(child, _places(heap, pages[: max(1, len(pages) // 4)], rng), _STORE)
            yield
            yield from _program(
                system,
                rng,
                child,
                compiler if number == 1 or programs == 1 else text,
                int(p["compiler_text_pages" if number == 1 or programs == 1 else "text_pages"]),
                int(p["compiler_faults"] // programs),
                *common,
                int(p["compiler_calls"] // programs),
                int(p["accesses"]),
            )
            for _ in range(int(p["compiler_switches"]) // programs // 2):
                system.switch_to(make, 0, "syscall")
                system.switch_to(child, 0, "syscall")
            system.exit(child)
            system.switch_to(make, 0, "syscall")
            yield


def _server(system: GuestOS, rng: Rng, p: Numbers) -> Steps:
    """Workers take requests by turns; each maps a buffer for it, and unmaps it."""
    text = system.file(int(p["text_pages"]))
    resident = max(1, int(p["resident_pages"]))
    parent = system.spawn()
    system.exec(parent, text=text, data=resident, stack=32)
    data = _start(system, parent, 1)
    system.touch(parent, _places(data, np.arange(resident), rng), _STORE)
    workers = [system.fork(parent) for _ in range(max(1, int(p["workers"])))]
    yield
    while True:
        for worker in rng.permutation(workers).tolist():
            system.switch_to(worker, 0, "syscall")
            buffer = 1 + int(rng.integers(0, max(1, 2 * int(p["buffer_pages"]) - 1)))
            va = system.mmap(worker, buffer * _PAGE)
            system.touch(worker, _places(va, np.arange(buffer), rng), _STORE)
            count = int(p["accesses"])
            seen = rng.integers(0, resident, count // 2)
            system.touch(worker, _places(data, seen, rng), _kinds(rng, len(seen), 0.1))
            seen = rng.integers(0, buffer, count - count // 2)
            system.touch(worker, _places(va, seen, rng), _kinds(rng, len(seen), 0.5))
            system.syscall(worker, 4, times=int(p["calls"]))
            if p["ports"]:
                system.io(worker, int(p["ports"]))
            system.munmap(worker, va, buffer * _PAGE)
            yield


def _database(system: GuestOS, rng: Rng, p: Numbers) -> Steps:
    """One process with buffers as large as most of memory, touched at random."""
    process = system.spawn()
    pages = max(512, int(system.free_frames * p["resident"]))
    va = system.mmap(process, pages * _PAGE + (2 << 20), huge=True)
    va = (va + (2 << 20) - 1) & -(2 << 20)
    for first in range(0, pages, 512):
        last = min(pages, first + 512)
        system.touch(process, _places(va, np.arange(first, last), rng), _STORE)
        yield
    count, round_ = max(1, int(p["accesses"])), 0
    hot = max(1, pages // 10)
    while True:
        seen = rng.integers(0, pages, count)
        seen[rng.random(count) < p["hot"]] %= hot
        system.touch(process, _places(va, seen, rng), _kinds(rng, count, p["stores"]))
        system.syscall(process, 8)
        round_ += 1
        if p["timer"] and round_ % max(1, int(p["timer"])) == 0:
            system.timer()
        yield


def _static(system: GuestOS, rng: Rng, p: Numbers) -> Steps:
    """Pages that are all mapped before, touched at random; tables never change again."""
    process = system.spawn()
    pages = max(1, int(p["pages"]))
    va = system.mmap(process, pages * _PAGE + (2 << 20), huge=True)
    va = (va + (2 << 20) - 1) & -(2 << 20)
    for first in range(0, pages, 512):
        last = min(pages, first + 512)
        system.touch(process, _places(va, np.arange(first, last), rng), _STORE)
        yield
    while True:
        seen = rng.integers(0, pages, 4096)
        system.touch(process, _places(va, seen, rng), _kinds(rng, 4096, p["stores"]))
        yield


def _boot(system: GuestOS, rng: Rng, p: Numbers) -> Steps:
    """Services start one after the other; for each port access the measured share of the rest."""
    pages = max(2, int(p["text_pages"]))
    text = system.file(pages)
    parent = system.spawn(64)
    heap = _start(system, parent, 0)
    system.touch(parent, _places(heap, np.arange(64), rng), _STORE)
    ports = max(1, p["ports"])
    rates = {key: p[key] / ports for key in ("cpuid", "interrupts", "cr_writes")}
    faults, calls = p["faults_per_port"], p["calls_per_port"]
    while True:
        # a service: so short that its faults and its port accesses are in the proportion
        share = 16
        child = system.fork(parent)
        own = max(1, int(share * faults * 0.7))
        system.exec(child, text=text, data=own, stack=32)
        data = _start(system, child, 1)
        code = _start(system, child, 0)
        for part in range(share):
            first, last = own * part // share, own * (part + 1) // share
            if last > first:
                system.touch(child, _places(data, np.arange(first, last), rng), _STORE)
            windows = rng.integers(0, pages, 2)
            system.touch(child, _places(code, windows, rng), _FETCH)
            count = int(p["accesses_per_port"])
            seen = rng.integers(0, max(1, last), count)
            system.touch(child, _places(data, seen, rng), _kinds(rng, count, 0.3))
            system.syscall(child, 4, times=int(rng.poisson(calls)))
            system.io(child, 1)
            system.cpuid(int(rng.poisson(rates["cpuid"])))
            for _ in range(int(rng.poisson(rates["interrupts"]))):
                system.timer()
            # half of the writes flush all, half are of the FPU's owner; each is two
            for _ in range(int(rng.poisson(rates["cr_writes"] / 4))):
                system.flush_all()
            for _ in range(int(rng.poisson(rates["cr_writes"] / 4))):
                system.task_switched()
            yield
        system.exit(child)
        system.switch_to(parent, 0, "syscall")
        system.touch(parent, _places(heap, rng.permutation(64)[:8], rng), _STORE)
        yield


def _reclaim(system: GuestOS, rng: Rng, p: Numbers) -> Steps:
    """A process wants more pages than there are; reclaim keeps some free."""
    process = system.spawn()
    total = system.free_frames
    pages = max(512, int(total * p["oversize"]))
    va = system.mmap(process, pages * _PAGE)
    low, high = max(16, int(total * p["low"])), max(32, int(total * p["high"]))
    # between two looks at what is free, fewer touches than that
    count, window = max(1, low // 2), max(64, pages // 20)
    place = 0
    while True:
        if system.free_frames < low and system.reclaim(high - system.free_frames) == 0:
            raise FrameExhaustedError("reclaim found nothing to take: memory is too small")
        near = (place + rng.integers(0, window, count)) % pages
        far = rng.integers(0, pages, count)
        seen = np.where(rng.random(count) < p["near"], near, far)
        system.touch(process, _places(va, seen, rng), _kinds(rng, count, p["stores"]))
        place += window // 64
        yield


WORKLOADS: dict[str, Callable[[GuestOS, Rng, Numbers], Steps]] = {
    "compile": _compile,
    "server": _server,
    "database": _database,
    "static": _static,
    "boot": _boot,
    "reclaim": _reclaim,
}
"""What there is, by name."""
