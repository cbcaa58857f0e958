"""What counted events cost: cycles for each class of event, and published projections."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from pyvirt.errors import InvalidTypeError, InvalidValueError
from pyvirt.mmu.geometry import MOST_LEVELS
from pyvirt.mmu.prices import Cycles, Groups, Prices, known

__all__ = [
    "CLASSES",
    "GROUPS",
    "CostModel",
    "Cycles",
    "describe",
    "linear_overhead",
    "names",
    "project",
]

#: The counters of `pyvirt.MMU` that have a cost, with their number of elements.
_COUNTERS = {
    "tlb_hits": 3 * MOST_LEVELS,
    "walks": 3,
    "dirty_assists": 1,
    "rights_rewalks": 1,
    "guest_refs": 6,
    "host_refs": 6,
    "guest_cache_hits": 6,
    "host_cache_hits": 6,
    "nested_tlb_hits": 3,
    "guest_a_set": 1,
    "guest_d_set": 1,
    "host_a_set": 1,
    "host_d_set": 1,
    "pml_entries": 1,
    "pml_full": 1,
    "ept_violations": 1,
    "ept_misconfigurations": 1,
    "page_faults": 1,
    "data_cache_hits": 4,
    "invalidations": 16,
    "shootdowns": 1,
    "ipis": 1,
}
#: Counters without a cost: what happened is priced by others.
_FREE = {"accesses", "faults", "nested_walks", "dropped", "splits"}

#: The first elements of `invalidations`.
_OPERATIONS = (
    "invlpg",
    "mov_cr3",
    "mov_cr4",
    "mov_cr0",
    "invpcid",
    "invvpid",
    "invept",
    "invlpga",
    "tlb_control",
    "vm_entry",
    "vm_exit",
)
_MEMORY = ("reference_l1", "reference_l2", "reference_l3", "reference_memory")
_FLAT = ("reference_guest", "reference_host")
_EXITS = ("ept_violation", "ept_misconfiguration", "pml_full", "page_fault")

#: The classes of events, by the group that a plot shows.
GROUPS = {
    "TLB hits": tuple(f"tlb_hit_{level + 1}" for level in range(MOST_LEVELS)),
    "walk caches": ("walk_cache_hit", "nested_tlb_hit"),
    "walks": ("walk", *_MEMORY, *_FLAT, "dirty_assist", "rights_rewalk"),
    "A and D": ("accessed_update", "dirty_update", "pml_entry"),
    "exits": _EXITS,
    "operations": (*_OPERATIONS, "shootdown", "ipi"),
}
#: Every class of events that can have a cost.
CLASSES = tuple(name for group in GROUPS.values() for name in group)


@dataclass(frozen=True, slots=True)
class CostModel(Prices):
    """Cycles for each class of events.

    Parameters
    ----------
    name : str
        One of `pyvirt.mmu.costs.names`, or with `costs` any name.
    costs : mapping of str to float, optional
        Cycles by class, one of `CLASSES`; a class that is missing costs nothing. None: those of
        the table with that name.

    Raises
    ------
    InvalidValueError, InvalidTypeError
        For a name that no table has, an unknown class, or a cost that is negative or not a
        finite number.

    Notes
    -----
    References of a walk cost what the level of the data-cache model that served them does. If no
    such model ran, that is if ``data_cache_hits`` are all zero, every reference of the guest's
    tables costs ``reference_guest`` and every one of the nested tables ``reference_host``.

    A hit in the TLB costs ``tlb_hit_1`` to ``tlb_hit_7`` by its level. A walk that succeeds costs
    ``walk`` besides its references.

    Two models, for example of memory and of exits, are joined by ``|``; where both have a cost,
    that of the right one counts.

    Examples
    --------
    >>> counted = {"walks": [1, 0, 0], "data_cache_hits": [3, 0, 0, 1]}
    >>> pv.CostModel("sagepte").cycles(counted).total
    212
    """

    _folder: ClassVar[Path] = Path(__file__).with_name("cost_data")
    _noun: ClassVar[str] = "a cost"
    _groups: ClassVar[Groups] = GROUPS
    _classes: ClassVar[tuple[str, ...]] = CLASSES

    def cycles(self, counters: Mapping[str, Any] | np.void | npt.NDArray[np.void]) -> Cycles:
        """Price counted events.

        Parameters
        ----------
        counters : mapping, structured array or record
            Fields of the counters of `pyvirt.MMU`; what is missing is zero. The elements of an
            array, for example the cores of an MMU, are added up.

        Returns
        -------
        Cycles
            The total, and by class.

        Raises
        ------
        InvalidValueError
            For a field of a mapping that is not a counter, or has another number of elements.
        InvalidTypeError
            For anything else.
        """
        return self.price(_events(_counts(counters)))


names = CostModel.names
describe = CostModel.describe


def project(walk_fraction: npt.ArrayLike, walk_speedup: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Give the speed-up of a program whose page walks become faster.

    Parameters
    ----------
    walk_fraction : array_like
        The part of the program's time that it spends in walks, 0 to 1.
    walk_speedup : array_like
        How many times faster the walks become, above 0.

    Returns
    -------
    ndarray of float64
        ``1 / ((1 - walk_fraction) + walk_fraction / walk_speedup)``, broadcast.

    Raises
    ------
    InvalidValueError
        For a fraction or a speed-up out of range.

    References
    ----------
    As used by the artifacts of DMT (ASPLOS 2024) and SagePTE (MICRO), equation 4 of the latter:
    amirmnoohi/SagePTE-AE on GitHub, commit 317afce, Simulator/scripts/parse_walk_stats.py.

    Examples
    --------
    >>> float(project(0.5, 2))
    1.3333333333333333
    """
    fraction = _floats(walk_fraction, "walk_fraction")
    speedup = _floats(walk_speedup, "walk_speedup")
    if not np.all((fraction >= 0) & (fraction <= 1)):
        raise InvalidValueError("walk_fraction must be from 0 to 1")
    if not np.all(speedup > 0):
        raise InvalidValueError("walk_speedup must be above 0")
    return np.asarray(1 / ((1 - fraction) + fraction / speedup))


def linear_overhead(
    misses: npt.ArrayLike, references: npt.ArrayLike, cycles: npt.ArrayLike
) -> npt.NDArray[np.float64]:
    """Estimate the cycles of TLB misses as a product.

    Parameters
    ----------
    misses : array_like
        TLB misses.
    references : array_like
        References of one walk.
    cycles : array_like
        Cycles of one reference.

    Returns
    -------
    ndarray of float64
        ``misses * references * cycles``, broadcast.

    Raises
    ------
    InvalidValueError
        For a negative number.

    Notes
    -----
    The form of the linear models of Gandhi et al. (MICRO 2014, ISCA 2016), which is recalled: the
    papers were not read for it.
    """
    factors = [
        _floats(misses, "misses"),
        _floats(references, "references"),
        _floats(cycles, "cycles"),
    ]
    for name, values in zip(("misses", "references", "cycles"), factors, strict=True):
        if not np.all(values >= 0):
            raise InvalidValueError(f"{name} must not be negative")
    return np.asarray(factors[0] * factors[1] * factors[2])


def _floats(values: npt.ArrayLike, name: str) -> npt.NDArray[np.float64]:
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidTypeError(f"{name} must be numbers, got {values!r:.80}") from error


def _counts(counters: object) -> dict[str, list[int]]:
    """Flatten the counters that matter, summed over cores."""
    if isinstance(counters, np.void | np.ndarray) and counters.dtype.names:
        present = [name for name in counters.dtype.names if name in _COUNTERS]
        cores = np.atleast_1d(np.asarray(counters))
        return {name: _elements(name, [core[name] for core in cores.flat]) for name in present}
    if not isinstance(counters, Mapping):
        raise InvalidTypeError(
            f"counters must be a mapping, a structured array or a record, got {counters!r:.80}"
        )
    for name in counters:
        known(name, _COUNTERS.keys() | _FREE, "no counter is named")
    return {name: _elements(name, [value]) for name, value in counters.items() if name in _COUNTERS}


def _elements(name: str, per_core: list[Any]) -> list[int]:
    """Add up one counter over cores, in Python's integers, which do not overflow."""
    rows = [np.asarray(value).ravel() for value in per_core]
    for row in rows:
        if row.dtype.kind not in "iu":
            raise InvalidTypeError(f"{name} must be integers, got dtype {row.dtype}")
        if len(row) != _COUNTERS[name]:
            raise InvalidValueError(f"{name} must have {_COUNTERS[name]} elements, got {len(row)}")
        if row.dtype.kind == "i" and (row < 0).any():
            raise InvalidValueError(f"{name} must not be negative")
    return [sum(column) for column in zip(*(row.tolist() for row in rows), strict=True)] or [
        0
    ] * _COUNTERS[name]


def _events(counts: dict[str, list[int]]) -> dict[str, int]:
    """Count the classes of events; those that did not happen are left out."""

    def total(*names: str) -> int:
        return sum(sum(counts.get(name, ())) for name in names)

    hits = counts.get("tlb_hits", [0] * _COUNTERS["tlb_hits"])
    events = {
        name: sum(hits[3 * level : 3 * level + 3]) for level, name in enumerate(GROUPS["TLB hits"])
    }
    events["walk_cache_hit"] = total("guest_cache_hits", "host_cache_hits")
    events["nested_tlb_hit"] = total("nested_tlb_hits")
    events["walk"] = total("walks")
    served = counts.get("data_cache_hits", [0] * 4)
    if any(served):
        events.update(zip(_MEMORY, served, strict=True))
    else:
        events.update(zip(_FLAT, (total("guest_refs"), total("host_refs")), strict=True))
    events["dirty_assist"] = total("dirty_assists")
    events["rights_rewalk"] = total("rights_rewalks")
    events["accessed_update"] = total("guest_a_set", "host_a_set")
    events["dirty_update"] = total("guest_d_set", "host_d_set")
    events["pml_entry"] = total("pml_entries")
    events["pml_full"] = total("pml_full")
    events["ept_violation"] = total("ept_violations")
    events["ept_misconfiguration"] = total("ept_misconfigurations")
    events["page_fault"] = total("page_faults")
    operations = counts.get("invalidations", [0] * 16)
    events.update(zip(_OPERATIONS, operations[: len(_OPERATIONS)], strict=True))
    events["shootdown"] = total("shootdowns")
    events["ipi"] = total("ipis")
    return {name: count for name, count in events.items() if count}
