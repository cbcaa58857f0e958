"""What a hypervisor's work costs: exits by reason, and what is done about them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from pyvirt.errors import InvalidTypeError
from pyvirt.mmu.prices import Cycles, Groups, Prices

__all__ = ["CLASSES", "EXIT_REASONS", "GROUPS", "ExitCosts"]

#: Counters of `pyvirt.Hypervisor` that are exits, one for each reason.
EXIT_REASONS = (
    *("x_pf", "x_npf", "x_invlpg", "x_cr3_write", "x_cr0", "x_cr4", "x_io", "x_other"),
    *("x_invpcid", "x_pml_full"),
)

#: The counters whose sum is the number of events of a class.
_COUNTERS = {
    "guest_fault": ("guest_faults",),
    "page_fault_exit": ("x_pf",),
    "fault_reflected": ("pf_guest",),
    "violation_exit": ("x_npf",),
    "invlpg_exit": ("x_invlpg", "x_invpcid"),
    "cr3_exit": ("x_cr3_write",),
    "cr_exit": ("x_cr0", "x_cr4"),
    "io_exit": ("x_io",),
    "other_exit": ("x_other",),
    "pml_full_exit": ("x_pml_full",),
    "no_memory_emulated": ("pf_mmio",),
    "write_emulated": ("mmu_pte_write",),
    "entry_filled": ("filled",),
    "entry_prefetched": ("prefetched",),
    "page_made": ("mmu_cache_miss",),
    "page_zapped": ("mmu_shadow_zapped",),
    "table_unsynced": ("unsyncs",),
    "entry_compared": ("sync_compared",),
    "reverse_map_step": ("reverse_map_walked",),
    "flush": ("tlb_flush",),
    "table_moved": ("agile_moved", "agile_returned"),
}

#: The classes of events, by the group that a plot shows.
GROUPS: Groups = {
    "guest faults": ("guest_fault",),
    "page-fault exits": ("page_fault_exit", "fault_reflected"),
    "violations": ("violation_exit",),
    "register exits": ("invlpg_exit", "cr3_exit", "cr_exit"),
    "other exits": ("io_exit", "other_exit", "pml_full_exit", "no_memory_emulated"),
    "table writes": ("write_emulated", "table_unsynced", "reverse_map_step"),
    "table upkeep": (
        "entry_filled",
        "entry_prefetched",
        "page_made",
        "page_zapped",
        "entry_compared",
        "flush",
        "table_moved",
    ),
}
#: Every class of events that can have a cost.
CLASSES = tuple(name for group in GROUPS.values() for name in group)


@dataclass(frozen=True, slots=True)
class ExitCosts(Prices):
    """Cycles for each class of what `pyvirt.Hypervisor` counts.

    Parameters
    ----------
    name : str
        A table (`ExitCosts.names`), or with `costs` any name.
    costs : mapping of str to float, optional
        Cycles by class, one of `pyvirt.mmu.exits.CLASSES`; a class that is missing costs
        nothing. None: those of the table with that name.

    Raises
    ------
    InvalidValueError, InvalidTypeError
        For a name that no table has, an unknown class, or a cost that is negative or not a
        finite number.

    Notes
    -----
    The cost of an exit is that of going to the hypervisor and back, by its reason; what the
    hypervisor does meanwhile is priced by its own classes: entries filled and compared, writes
    emulated, pages made and zapped. ``guest_fault`` is the delivery of a page fault to the guest
    and the return from it, which costs the same without a hypervisor; ``fault_reflected`` is what
    the hypervisor adds where it saw the fault first.

    Two tables are joined by ``|``; where both have a cost, that of the right one counts.

    Examples
    --------
    >>> from pyvirt.mmu.exits import ExitCosts
    >>> ExitCosts("pentium4-672").cycles({"x_pf": 1, "mmu_pte_write": 1}).total
    12732
    """

    _folder: ClassVar[Path] = Path(__file__).with_name("exit_cost_data")
    _noun: ClassVar[str] = "an exit cost"
    _groups: ClassVar[Groups] = GROUPS
    _classes: ClassVar[tuple[str, ...]] = CLASSES

    def cycles(self, counters: Mapping[str, Any] | np.void | npt.NDArray[np.void]) -> Cycles:
        """Price what a hypervisor counted.

        Parameters
        ----------
        counters : mapping, structured array or record
            Fields of the counters of `pyvirt.Hypervisor`; what is missing is zero, and what has
            no class costs nothing.

        Returns
        -------
        Cycles
            The total, and by class.

        Raises
        ------
        InvalidTypeError
            For anything else.
        """
        if isinstance(counters, np.void | np.ndarray) and counters.dtype.names:
            present = set(counters.dtype.names)
        elif isinstance(counters, Mapping):
            present = set(counters)
        else:
            raise InvalidTypeError(
                f"counters must be a mapping, a structured array or a record, got {counters!r:.80}"
            )
        counts = {
            name: sum(_total(counters[field], field) for field in fields if field in present)
            for name, fields in _COUNTERS.items()
        }
        return self.price({name: count for name, count in counts.items() if count})


def _total(value: Any, field: str) -> int:
    """Add up a counter, in Python's integers."""
    values = np.asarray(value)
    if values.dtype.kind not in "iu":
        raise InvalidTypeError(f"{field} must be integers, got dtype {values.dtype}")
    return sum(values.ravel().tolist())
