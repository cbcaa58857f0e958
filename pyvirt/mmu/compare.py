"""One stream of events in several modes of translation, side by side."""

from __future__ import annotations

import copy
import inspect
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from pyvirt.errors import InvalidTypeError, InvalidValueError, PyvirtError
from pyvirt.mmu import costs as memory_costs
from pyvirt.mmu.agile import AgileRules
from pyvirt.mmu.costs import CostModel
from pyvirt.mmu.exits import EXIT_REASONS, ExitCosts
from pyvirt.mmu.geometry import Geometry
from pyvirt.mmu.memory import PhysicalMemory
from pyvirt.mmu.prices import Cycles, known
from pyvirt.mmu.shadow import Hypervisor, ShadowRules

__all__ = ["MODES", "Comparison", "Run", "compare"]

#: What a mode is to `pyvirt.Hypervisor`.
MODES = {
    "native": "none",
    "shadow": "shadow",
    "nested": "tdp",
    "legacy": "legacy",
    "agile": "agile",
}
_USUAL = ("native", "shadow", "nested", "agile")
#: Parameters of `pyvirt.Hypervisor` that `compare` has itself, or chooses.
_OWN = frozenset({"self", "memory", "tables", "rules", "backing", "cr3", "tlb", "agile"})
#: Groups of the MMU's events that `ExitCosts` prices, as the hypervisor counts them.
_PRICED_AS_EXITS = ("exits", "operations")

Events: TypeAlias = npt.NDArray[Any] | Iterable[npt.NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Run:
    """What one mode made of a stream.

    Attributes
    ----------
    mode : str
        One of `MODES`.
    counters : record
        The hypervisor's, with the names of `pyvirt.Hypervisor.counters`.
    mmu_counters : record or None
        The processor's, summed over cores, with the names of `pyvirt.MMU.counters`; None without
        TLBs.
    cycles : Cycles
        The guest's accesses (group ``work``), its translations, and the hypervisor's work.
    """

    mode: str
    counters: np.void
    mmu_counters: np.void | None
    cycles: Cycles

    @property
    def exits_by_reason(self) -> dict[str, int]:
        """Exits by reason, zeros included."""
        return {name: int(self.counters[name]) for name in EXIT_REASONS}

    @property
    def exits(self) -> int:
        """All of them."""
        return sum(self.exits_by_reason.values())

    @property
    def guest_faults(self) -> int:
        """Page and protection faults of the guest: true ones."""
        return int(self.counters["guest_faults"])

    @property
    def hidden_faults(self) -> int:
        """Page faults and violations that the guest never sees: an entry was made or changed."""
        return int(self.counters["pf_fixed"])

    @property
    def tlb_misses(self) -> int:
        """Accesses that no TLB served; 0 without TLBs."""
        return self._sum("accesses") - self._sum("tlb_hits")

    @property
    def walks(self) -> int:
        """Walks that succeeded; 0 without TLBs."""
        return self._sum("walks")

    @property
    def references(self) -> int:
        """Table entries that walks read; 0 without TLBs."""
        return self._sum("guest_refs", "host_refs")

    def _sum(self, *names: str) -> int:
        if self.mmu_counters is None:
            return 0
        return sum(int(np.sum(self.mmu_counters[name], dtype=np.uint64)) for name in names)


#: What the rows of a table show, by heading.
_ROWS: dict[str, Callable[[Run], int]] = {
    "exits": lambda run: run.exits,
    "guest faults": lambda run: run.guest_faults,
    "hidden faults": lambda run: run.hidden_faults,
    "TLB misses": lambda run: run.tlb_misses,
    "walks": lambda run: run.walks,
    "references": lambda run: run.references,
}


@dataclass(frozen=True, slots=True)
class Comparison:
    """The runs of `compare`, by mode.

    Attributes
    ----------
    events : int
        Of the stream, without those that ran before the count.
    accesses : int
        Of these, those that were made: events of handlers that did not run are left out.
    runs : dict of str to Run
        In the order in which the modes were given.
    settings : dict of str to str
        What was chosen: ``tlb``, ``backing``, ``costs``, ``exit_costs``, ``work``.
    """

    events: int
    accesses: int
    runs: dict[str, Run]
    settings: dict[str, str]

    def __getitem__(self, mode: str) -> Run:
        """Give the run of a mode."""
        known(mode, self.runs, "no run has the mode")
        return self.runs[mode]

    def overhead(self, mode: str) -> float:
        """Give the cycles that a mode needs beyond native, as a share of native's.

        Returns
        -------
        float
            0 for native; nan if native did not run, or took no time.
        """
        native = self.runs.get("native")
        if native is None or native.cycles.total == 0:
            return float("nan")
        return self[mode].cycles.total / native.cycles.total - 1

    @property
    def best(self) -> str:
        """The mode with the fewest cycles, native left out unless it is alone."""
        modes = [mode for mode in self.runs if mode != "native"] or list(self.runs)
        return min(modes, key=lambda mode: self.runs[mode].cycles.total)

    def priced(
        self,
        *,
        costs: str | CostModel = "sagepte",
        exit_costs: str | ExitCosts = "skylake-sp",
        work: float = 4,
    ) -> Comparison:
        """Give the same counts at other prices.

        Parameters
        ----------
        costs, exit_costs, work
            As in `compare`.

        Returns
        -------
        Comparison
            Nothing is run again.
        """
        model, exits = _models(costs, exit_costs, work)
        runs = {
            mode: _priced(mode, run.counters, run.mmu_counters, self.accesses, work, model, exits)
            for mode, run in self.runs.items()
        }
        named = {"costs": model.name, "exit_costs": exits.name, "work": f"{work:g}"}
        return Comparison(self.events, self.accesses, runs, {**self.settings, **named})

    def to_table(self) -> npt.NDArray[Any]:
        """Give one row a mode.

        Returns
        -------
        ndarray
            Structured: ``mode``, ``accesses``, the counts of `Run`, exits by reason (``x_pf``
            ...), ``cycles``, cycles by group (``cycles_work`` ...), and ``overhead``.
        """
        groups = self._groups()
        dtype = np.dtype(
            [("mode", f"U{max(map(len, self.runs))}"), ("accesses", "<u8")]
            + [(_field(name), "<u8") for name in _ROWS]
            + [(name, "<u8") for name in EXIT_REASONS]
            + [("cycles", "<f8")]
            + [(f"cycles_{_field(name)}", "<f8") for name in groups]
            + [("overhead", "<f8")]
        )
        rows = [
            (
                mode,
                self.accesses,
                *(count(run) for count in _ROWS.values()),
                *run.exits_by_reason.values(),
                run.cycles.total,
                *(run.cycles.groups[name] for name in groups),
                self.overhead(mode),
            )
            for mode, run in self.runs.items()
        ]
        return np.array(rows, dtype=dtype)

    def to_dict(self) -> dict[str, Any]:
        """Give everything as numbers, strings and dicts."""
        return {
            "events": self.events,
            "accesses": self.accesses,
            **self.settings,
            "modes": {mode: self._facts(run) for mode, run in self.runs.items()},
        }

    def to_json(self) -> str:
        """Give `to_dict` as a JSON document; an overhead that is not known is null."""
        return json.dumps(self.to_dict(), indent=1)

    def rows(self) -> tuple[tuple[str, ...], list[tuple[int | float | str, ...]]]:
        """Give headings, and rows with one number a mode: what `str` shows.

        Exits by reason and cycles by group that are zero in every mode are left out.
        """
        runs = list(self.runs.values())
        rows: list[tuple[int | float | str, ...]] = [
            (name, *(count(run) for run in runs)) for name, count in _ROWS.items()
        ]
        for name in EXIT_REASONS:
            rows.append((f"  {name}", *(run.exits_by_reason[name] for run in runs)))
        rows.append(("cycles", *(run.cycles.total for run in runs)))
        for name in self._groups():
            rows.append((f"  {name}", *(float(run.cycles.groups[name]) for run in runs)))
        rows = [row for row in rows if not str(row[0]).startswith("  ") or any(row[1:])]
        if "native" in self.runs:
            rows.append(("overhead", *(self.overhead(mode) for mode in self.runs)))
        return ("", *self.runs), rows

    def __str__(self) -> str:
        heading, rows = self.rows()
        cells = [heading] + [
            (str(name), *(f"{n:.1%}" if name == "overhead" else f"{n:,.0f}" for n in numbers))
            for name, *numbers in rows
        ]
        head = max(len(row[0]) for row in cells)
        width = max(len(cell) for row in cells for cell in row[1:])
        return "\n".join(
            f"{row[0]:<{head}}" + "".join(f"  {cell:>{width}}" for cell in row[1:]) for row in cells
        )

    def _groups(self) -> list[str]:
        return list(next(iter(self.runs.values())).cycles.groups)

    def _facts(self, run: Run) -> dict[str, Any]:
        over = self.overhead(run.mode)
        return {
            **{_field(name): count(run) for name, count in _ROWS.items()},
            "exits_by_reason": run.exits_by_reason,
            "cycles": {
                "total": run.cycles.total,
                "by_group": run.cycles.groups,
                "by_class": run.cycles.breakdown,
            },
            "overhead": over if over == over else None,
            "counters": {
                name: np.asarray(run.counters[name]).tolist()
                for name in run.counters.dtype.names or ()
            },
        }


def compare(
    events: Events | Callable[[], Events],
    memory: PhysicalMemory,
    *,
    cr3: int,
    modes: Sequence[str] | None = None,
    tlb: str | Geometry | None = "skylake-sp",
    backing: Any = "4K",
    costs: str | CostModel = "sagepte",
    exit_costs: str | ExitCosts = "skylake-sp",
    work: float = 4,
    before: Events | Callable[[], Events] = (),
    rules: ShadowRules | None = None,
    agile: AgileRules | None = None,
    **options: Any,
) -> Comparison:
    """Run one stream of events natively, under a hypervisor of each kind, and price what happens.

    Parameters
    ----------
    events : ndarray of `pyvirt.traces.EVENT_DTYPE`, iterable of such arrays, or callable
        What the vCPUs do; an iterable is read once, chunk by chunk, by all modes side by side, so
        that memory for one chunk suffices for any length. A callable gives one of these.
    memory : PhysicalMemory
        The guest's at the start. Every mode runs on a copy of its own; this one stays as it is.
    cr3 : int
        Of every vCPU at the start.
    modes : sequence of str, optional
        ``native``: the tables are the machine's own, nothing exits. ``shadow``, ``nested`` (as
        KVM's TDP MMU fills them), ``legacy`` (nested, with the older MMU) and ``agile``, which
        needs `tlb`. None: all but ``legacy``, or without TLBs the first three.
    tlb : str, Geometry or None, default "skylake-sp"
        The processor in front of the tables, the same in every mode; None counts exits alone.
    backing : {"4K", "2M"} or array of bool
        In what pages the host keeps the guest's memory.
    costs : str or CostModel, default "sagepte"
        Prices translation. Its costs of exits and operations are left out: `exit_costs` prices
        those.
    exit_costs : str or ExitCosts, default "skylake-sp"
        Prices faults and what a hypervisor does; two tables: ``"a|b"``.
    work : float, default 4
        Cycles of an access besides its translation, the same in every mode: a hit in the first
        data cache (4 cycles in the table ``sagepte``).
    before : as `events`
        Runs first and is not counted: what fills tables and caches.
    rules : ShadowRules, optional
        What shadow tables do. None: KVM's rules, but for ``agile`` the policy
        ``write_protect``, whose traps tell it which tables are written.
    agile : AgileRules, optional
        When agile paging changes modes.
    **options
        ``vcpus``, ``levels``, ``nested_levels``, ``cr0``, ``cr4``, ``efer``, ``pa_width``,
        ``page_limit`` as in `pyvirt.Hypervisor`.

    Returns
    -------
    Comparison
        A run for each mode.

    Raises
    ------
    InvalidValueError, InvalidTypeError
        For arguments that are not as described.
    PyvirtError
        For an event that cannot be; the message names the mode and the event.

    Notes
    -----
    All modes run the same engine for vCPUs, `pyvirt.Hypervisor`: operations of several events,
    fault handlers and stores with data mean the same in each, and `pyvirt.MMU`, which knows no
    data, could not run them. Only the tables below the TLBs differ.

    What is counted depends on no cost; what is priced are translations, faults and exits. A
    program's own instructions are in `work`, its waiting for memory is not.

    Examples
    --------
    >>> from pyvirt.traces import Op, accesses
    >>> memory = pv.PhysicalMemory(1 << 24)
    >>> tables = pv.PageTables(memory, frames=(0x100000, 0x200000))
    >>> tables.map_range(0x400000, 0x800000, 0x4000, rights="rw")
    >>> pages = [0x400000, 0x401000, 0x402000]
    >>> found = pv.compare(accesses(pages, Op.STORE, 8), memory, cr3=tables.root)
    >>> {mode: run.exits for mode, run in found.runs.items()}
    {'native': 0, 'shadow': 3, 'nested': 7, 'agile': 3}
    """
    if modes is None:
        modes = _USUAL if tlb is not None else _USUAL[:3]
    machines = _machines(memory, modes, tlb, rules, agile, {**options, "backing": backing}, cr3)
    model, exits = _models(costs, exit_costs, work)
    _run(machines, before, "before")
    for machine in machines.values():
        machine.reset()
    done = _run(machines, events, "events")
    counted = {mode: machine.counters[0].copy() for mode, machine in machines.items()}
    # an access that an exit starts again is one access
    accesses = min(int(counters["accesses"]) for counters in counted.values())
    runs = {
        mode: _priced(mode, counted[mode], _processor(machine), accesses, work, model, exits)
        for mode, machine in machines.items()
    }
    settings = {
        "tlb": "none" if tlb is None else tlb if isinstance(tlb, str) else tlb.name,
        "backing": backing if isinstance(backing, str) else "mixed",
        "costs": model.name,
        "exit_costs": exits.name,
        "work": f"{work:g}",
    }
    return Comparison(done, accesses, runs, settings)


_WORK = {"work": ("access",)}


def _priced(
    mode: str,
    counters: np.void,
    processor: np.void | None,
    accesses: int,
    work: float,
    model: CostModel,
    exits: ExitCosts,
) -> Run:
    """Put prices on what a mode counted."""
    spent = Cycles(accesses * work, {"access": accesses * work}, {"access": accesses}, _WORK)
    spent += model.cycles({} if processor is None else processor)
    spent += exits.cycles(counters)
    return Run(mode, counters, processor, spent)


def _machines(
    memory: PhysicalMemory,
    modes: Sequence[str],
    tlb: Any,
    rules: ShadowRules | None,
    agile: AgileRules | None,
    options: dict[str, Any],
    cr3: int,
) -> dict[str, Hypervisor]:
    """Make a machine for each mode, each on its own copy of memory."""
    if not isinstance(memory, PhysicalMemory):
        raise InvalidTypeError(f"memory must be a PhysicalMemory, got {memory!r:.80}")
    if isinstance(modes, str) or not modes:
        raise InvalidTypeError(f"modes must be a sequence of names, got {modes!r:.80}")
    accepted = inspect.signature(Hypervisor).parameters.keys()
    for name in options:
        known(name, accepted - _OWN | {"backing"}, "no option is named")
    machines: dict[str, Hypervisor] = {}
    for mode in modes:
        known(mode, MODES, "no mode is named")
        if mode in machines:
            raise InvalidValueError(f"modes has {mode!r} twice")
        chosen = dict(options)
        if tlb is not None:
            chosen["tlb"] = tlb
        own = rules
        if mode == "agile":
            chosen["agile"] = agile
            own = ShadowRules.policy("write_protect") if rules is None else rules
        machines[mode] = Hypervisor(
            copy.deepcopy(memory),
            tables=MODES[mode],  # type: ignore[arg-type]
            rules=own,
            cr3=cr3,
            **chosen,
        )
    return machines


def _models(
    costs: str | CostModel, exit_costs: str | ExitCosts, work: float
) -> tuple[CostModel, ExitCosts]:
    """Check the prices, and take what the second model prices out of the first."""
    if isinstance(work, bool) or not isinstance(work, int | float | np.number):
        raise InvalidTypeError(f"work must be a number of cycles, got {work!r:.80}")
    if not 0 <= work < float("inf"):
        raise InvalidValueError(f"work must be finite and >= 0, got {work}")
    if isinstance(costs, str):
        costs = CostModel.joined(costs)
    if isinstance(exit_costs, str):
        exit_costs = ExitCosts.joined(exit_costs)
    if not isinstance(costs, CostModel):
        raise InvalidTypeError(
            f"costs must be a CostModel or the name of a table, got {costs!r:.80}"
        )
    if not isinstance(exit_costs, ExitCosts):
        raise InvalidTypeError(
            f"exit_costs must be an ExitCosts or the name of a table, got {exit_costs!r:.80}"
        )
    others = {n for group in _PRICED_AS_EXITS for n in memory_costs.GROUPS[group]}
    kept = {name: cost for name, cost in costs.table.items() if name not in others}
    return CostModel(costs.name, kept), exit_costs


def _run(machines: Mapping[str, Hypervisor], events: Any, name: str) -> int:
    """Run every chunk on every machine; give the number of events."""
    total = 0
    for chunk in _chunks(events, name):
        for mode, machine in machines.items():
            try:
                machine.run_into(chunk, None, None, False, total)
            except (PyvirtError, MemoryError) as error:
                raise type(error)(f"mode {mode}: {error}") from error
        total += len(chunk)
    return total


def _chunks(events: Any, name: str) -> Iterator[npt.NDArray[Any]]:
    if callable(events):
        events = events()
    if isinstance(events, np.ndarray):
        events = (events,)
    if not isinstance(events, Iterable):
        raise InvalidTypeError(
            f"{name} must be an array of EVENT_DTYPE, an iterable of them, or a callable that "
            f"gives one, got {events!r:.80}"
        )
    yield from events


def _processor(machine: Hypervisor) -> np.void | None:
    """The counters of the processor in front of the tables, summed over cores."""
    cores: npt.NDArray[Any] | None = getattr(machine, "mmu_counters", None)
    if cores is None:
        return None
    total = np.zeros(1, cores.dtype)
    for name in cores.dtype.names or ():
        total[name] = cores[name].sum(axis=0, dtype=np.uint64)
    record: np.void = total[0]
    return record


def _field(name: str) -> str:
    """A heading as the name of a field."""
    return name.lower().replace(" ", "_").replace("-", "_")
