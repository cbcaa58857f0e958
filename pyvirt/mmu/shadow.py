"""A hypervisor's MMU: shadow page tables as KVM keeps them, and nested tables as it fills them."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self, TypeAlias

import numpy as np
import numpy.typing as npt

from pyvirt._core.shadow.engine import HyperCore
from pyvirt._core.shadow.log import LoggedCore
from pyvirt.errors import InvalidTypeError, InvalidValueError
from pyvirt.mmu import presets
from pyvirt.mmu.agile import AgileRules
from pyvirt.mmu.geometry import Cache, Geometry
from pyvirt.mmu.memory import PhysicalMemory
from pyvirt.mmu.mmu import Snapshot, cache_levels, cores_of, seeds_of

__all__ = ["Hypervisor", "ShadowRules"]

Tables: TypeAlias = Literal["shadow", "tdp", "legacy", "agile", "none"]
Policy: TypeAlias = Literal["unsync", "write_protect", "trace", "xen"]

REGION = 1 << 21
#: KVM lets shadow pages have 20 thousandths of a machine's frames, and 64 at least
#: (``KVM_PERMILLE_MMU_PAGES``, ``KVM_MIN_ALLOC_MMU_PAGES``).
PERMILLE, LEAST_PAGES = 20, 64
MOST_PAGES = (1 << 22) - 64


@dataclass(frozen=True, slots=True)
class ShadowRules:
    """What a shadow MMU does, each a switch; the defaults are KVM's (Linux 6.1).

    Attributes
    ----------
    unsync : bool
        A table of 4 KiB leaves goes out of sync after one trap; its frame is writable until
        the next sync. Without it each write to it is emulated.
    clean_read_only : bool
        A page is mapped read-only while the guest's D is clear, so that its first write faults.
    keep_pages : bool
        Shadow pages outlive a load of CR3 and are found again by frame and role. Without it
        each load begins with none.
    refill_at_invlpg, refill_at_injection : bool
        An entry that is dropped, or absent, is filled from the guest's at once if that was used.
    sync_at_cr3 : bool
        A load of CR3 write-protects and syncs the unsync tables below the root.
    sync_at_link : bool
        So does linking a page of level 2 or above, or building a root.
    prefetch_accessed : bool
        Only entries that the guest used are prefetched, or survive a sync.
    stay_unsync : bool
        A page that a look-up finds unsync is synced but stays unsync.
    large_pages : bool
        Pages of 2 MiB are mapped by one entry where guest and host allow it.
    flood_leaves : bool
        Emulated writes are counted for tables of 4 KiB leaves, too.
    refill_at_write : bool
        After an emulated write to such a table the entry is filled from the guest's new one if
        that was used; otherwise it is absent until a fault.
    prefetch : int
        Entries of the aligned group that a fault fills; 0 for none.
    flood_limit : int
        Emulated writes to one table since it was last used, after which it is zapped; 0: never.
    previous_roots : int
        Roots that are kept beside the current one, 0 to 7.
    least_free, refill : int
        Pages are recycled when fewer than `least_free` are free, until `refill` are.
    batch : int
        Pages that one pass of a sync notes, those on the way among them (``KVM_PAGE_ARRAY_NR``,
        recalled: none of the data here has more).
    unsync_limit : int
        Tables that may be unsync at a time, as in Xen; 0: any number.
    trace_limit : int
        Writes to a table of leaves that are emulated before it goes unsync; 0: none.
    log_writes_only : bool
        While writes are logged, only a write makes a page writable, so that the log has what
        was written and no more. Without it a page that is read, or synced, becomes writable if
        the guest's tables allow it, and is logged.
    split_eagerly : bool
        One-page nested tables ("tdp") split large pages when their log begins, instead of at
        the first write (``kvm.eager_page_split``).
    """

    unsync: bool = True
    clean_read_only: bool = True
    keep_pages: bool = True
    refill_at_invlpg: bool = True
    refill_at_injection: bool = True
    sync_at_cr3: bool = True
    sync_at_link: bool = True
    prefetch_accessed: bool = True
    stay_unsync: bool = True
    large_pages: bool = True
    flood_leaves: bool = False
    refill_at_write: bool = False
    prefetch: int = 8
    flood_limit: int = 3
    previous_roots: int = 3
    least_free: int = 5
    refill: int = 25
    batch: int = 16
    unsync_limit: int = 0
    trace_limit: int = 0
    log_writes_only: bool = False
    split_eagerly: bool = True

    @classmethod
    def policy(cls, name: Policy, **changes: Any) -> ShadowRules:
        """Give the rules of a policy for the tables of 4 KiB leaves.

        Parameters
        ----------
        name : {"unsync", "write_protect", "trace", "xen"}
            ``unsync``: KVM's, the defaults. ``write_protect``: every write to a guest's table
            is emulated, and many to one table zap its shadow. ``trace``: VMware's as Adams and
            Agesen describe it (ASPLOS 2006): writes are traced, which costs an exit each and
            keeps the shadow in step, until a table is written often; then its trace is lifted
            until the next flush, which costs hidden faults instead. ``xen``: three tables may
            be out of sync at a time, the one that is longest is resynced
            (``SHADOW_OOS_PAGES``, recalled).
        **changes
            Other fields.

        Returns
        -------
        ShadowRules
            For `Hypervisor`.

        Raises
        ------
        InvalidValueError
            A policy that there is not.
        """
        if name not in _POLICIES:
            raise InvalidValueError(
                f"policy must be one of {', '.join(_POLICIES)}, got {name!r:.80}"
            )
        return cls(**(_POLICIES[name] | changes))


_POLICIES: dict[str, dict[str, Any]] = {
    "unsync": {},
    "write_protect": {"unsync": False, "flood_leaves": True, "refill_at_write": True},
    "trace": {"trace_limit": 16, "refill_at_write": True},
    "xen": {"unsync_limit": 3},
}


class Hypervisor(LoggedCore):
    """One machine under a hypervisor that translates for it.

    Parameters
    ----------
    memory : PhysicalMemory
        The guest's; its tables are in it.
    tables : {"shadow", "tdp", "legacy", "agile", "none"}, default "shadow"
        Shadow tables; nested tables with one page a violation (KVM's TDP MMU); nested tables
        from the pool of shadow pages, with prefetch (KVM's older MMU); shadow tables that lead
        into the guest's own, from where a walk is nested, which needs `tlb`; or no hypervisor at
        all: the guest's tables are the machine's and nothing exits, to compare with.
    rules : ShadowRules, optional
        What a shadow MMU does.
    agile : AgileRules, optional
        With ``tables="agile"``: when the guest's tables go to nested mode and back.
    backing : {"4K", "2M"} or array of bool, default "4K"
        In what pages the host keeps the guest's memory: for all, or for each 2 MiB.
    page_limit : int, optional
        Shadow pages that may exist at a time; default: as KVM, 2 % of the frames, at least 64.
    vcpus : int, default 1
        How many.
    format : {"x86-64", "pae", "x86-32"}, default "x86-64"
        Of the guest's tables. CR4.PAE and EFER.LMA follow from it; with "x86-32", pages of 4 MiB
        need CR4.PSE.
    levels : {4, 5}
        Of the tables of a 64-bit guest.
    nested_levels : {4, 5}
        Of nested tables.
    cr0, cr3, cr4, efer : int
        Of every vCPU at the start.
    pa_width : int, default 48
        Width of the guest's physical addresses.
    tlb : str or Geometry, optional
        The caches of a processor in front of the tables: a preset (`pyvirt.mmu.presets.names`) or
        a geometry. None: accesses go straight through the tables.
    data_cache : sequence of Cache, default ()
        With `tlb`: the last levels of data caches for the references of walks, as in `MMU`.
    rng : int, SeedSequence or Generator, optional
        With `tlb`: seeds the arrays with random replacement; None is 0.

    Attributes
    ----------
    geometry : Geometry or None
        That of `tlb`.
    counters : ndarray
        What was counted, live and read-only: a structured array of one element.

    Raises
    ------
    InvalidValueError, InvalidTypeError, OutsideMemoryError
        For what cannot be; the message names the argument.

    Notes
    -----
    Rules and their source: Linux, Documentation/virt/kvm/x86/mmu.rst, and the measured exits of
    the validation data (experiments A9 and A9b). Protection keys and pages of 1 GiB of
    the host are not modelled. PDPTEs of a PAE guest are loaded with CR3 on all kinds of tables
    (SDM vol. 3, 4.4.1); AMD's processors read them during walks when nested.

    Examples
    --------
    >>> import pyvirt as pv
    >>> from pyvirt.traces import Op, accesses
    >>> memory = pv.PhysicalMemory(1 << 24)
    >>> tables = pv.PageTables(memory, frames=(0x100000, 0x200000))
    >>> tables.map_range(0x400000, 0x800000, 0x4000, rights="rw")
    >>> machine = pv.Hypervisor(memory, cr3=tables.root)
    >>> machine.run(accesses([0x400000, 0x401000, 0x400008], Op.STORE, 8))
    3
    >>> int(machine.counters["pf_fixed"][0])
    2
    """

    def __init__(
        self,
        memory: PhysicalMemory,
        *,
        tables: Tables = "shadow",
        rules: ShadowRules | None = None,
        agile: AgileRules | None = None,
        backing: Literal["4K", "2M"] | npt.ArrayLike = "4K",
        page_limit: int | None = None,
        vcpus: int = 1,
        format: Literal["x86-64", "pae", "x86-32"] = "x86-64",
        levels: int = 4,
        nested_levels: int = 4,
        cr0: int = 0x80010033,
        cr3: int = 0,
        cr4: int = 0x20,
        efer: int = 0xD00,
        pa_width: int = 48,
        tlb: str | Geometry | None = None,
        data_cache: Sequence[Cache] = (),
        rng: Any = None,
    ) -> None:
        if not isinstance(memory, PhysicalMemory):
            raise InvalidTypeError(f"memory must be a PhysicalMemory, got {memory!r:.80}")
        rules = ShadowRules() if rules is None else rules
        if not isinstance(rules, ShadowRules):
            raise InvalidTypeError(f"rules must be ShadowRules, got {rules!r:.80}")
        if page_limit is None:
            page_limit = (memory.end >> 12) * PERMILLE // 1000
            page_limit = min(max(LEAST_PAGES, page_limit), MOST_PAGES)
        guest = {
            "format": format,
            "pa_width": pa_width,
            **_registers(format, levels, cr4, efer),
            "cr0": cr0,
            "vendor": "amd",
            "large_1g": True,
            "mbec": False,
            "exec_only": False,
            "ept_ad": False,
            "set_ad": False,
            "ac": False,
            "pkru": 0,
            "pkrs": 0,
        }
        if agile is not None and tables != "agile":
            raise InvalidValueError('agile is for tables="agile"')
        if tables == "agile":
            agile = AgileRules() if agile is None else agile
            if not isinstance(agile, AgileRules):
                raise InvalidTypeError(f"agile must be AgileRules, got {agile!r:.80}")
        self.rules, self.agile = rules, agile
        self.geometry, processor = _processor(tlb, data_cache, rng, tables, vcpus)
        self._made = (
            tables,
            asdict(rules),
            _backing(backing, memory.end),
            page_limit,
            nested_levels,
            vcpus,
            guest,
            cr3,
            processor,
            None if agile is None else agile._numbers(),
        )
        super().__init__(memory, *self._made)

    def run(
        self,
        events: npt.NDArray[Any] | Iterable[npt.NDArray[Any]],
        *,
        codes: npt.NDArray[np.uint16] | None = None,
        values: npt.NDArray[np.uint64] | None = None,
        on_fault: Literal["mark", "stop"] = "mark",
    ) -> int:
        """Run what the vCPUs do.

        Parameters
        ----------
        events : ndarray of `pyvirt.traces.EVENT_DTYPE`, or an iterable of such arrays
            Accesses, register loads, INVLPG, stores to tables; see `pyvirt.traces.Arg` for
            operations of several events.
        codes, values : ndarray, optional
            For one array: receive for each event 0 (done), 2 (emulated by the hypervisor),
            3 (no memory there), 4 (the guest's page fault) or 5 (not run: its operation ended
            with a page fault, or had none to handle); and what a load read, or the error code
            of a page fault.
        on_fault : {"mark", "stop"}
            Whether to end after the first page fault of the guest.

        Returns
        -------
        int
            Events done.

        Raises
        ------
        InvalidValueError, OutsideMemoryError, MemoryError
            For an event that cannot be, which the message names by its number; those before it
            are done, and the state is consistent.
        """
        if on_fault not in ("mark", "stop"):
            raise InvalidValueError(f'on_fault must be "mark" or "stop", got {on_fault!r:.80}')
        stop = on_fault == "stop"
        if isinstance(events, np.ndarray):
            return self.run_into(events, codes, values, stop)
        if codes is not None or values is not None:
            raise InvalidTypeError("codes and values are for one array of events")
        if not isinstance(events, Iterable):
            raise InvalidTypeError(
                f"events must be an array of EVENT_DTYPE or an iterable of them, got {events!r:.80}"
            )
        total = 0
        for chunk in events:
            done = self.run_into(chunk, None, None, stop, total)
            total += done
            if done < len(chunk):
                break
        return total

    # --- state ---

    def snapshot(self) -> Snapshot:
        """Give the state of tables and vCPUs. What is in memory is not part of it."""
        return Snapshot(self._signature(), self._state())

    def restore(self, snapshot: Snapshot) -> None:
        """Go back to a snapshot of this machine, or of one that was made with the same arguments.

        The guest's memory must be as it was, too: tables that are in step would not be.
        """
        if not isinstance(snapshot, Snapshot):
            raise InvalidTypeError(f"snapshot must be a Snapshot, got {snapshot!r:.80}")
        if snapshot._made != self._signature():
            raise InvalidValueError("this snapshot is of a hypervisor with other arguments")
        self._set_state(snapshot._state)

    def _signature(self) -> tuple[Any, ...]:
        """What two machines must share to take each other's snapshots."""
        tables, rules, _, page_limit, nested_levels, vcpus, guest, _, processor, agile = self._made
        caches = None if processor is None else (processor[0], processor[2])
        own = tables, rules, self.mem.end, page_limit, nested_levels, vcpus, guest
        return *own, caches, agile

    def __copy__(self) -> Self:
        """Copy tables and registers; the memory is shared, so only one of both may write it."""
        return self._twin(self.mem)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self._twin(copy.deepcopy(self.mem, memo))

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, self._parts(self.mem)

    def _parts(self, memory: Any) -> tuple[Any, ...]:
        """What `_rebuild` takes."""
        return type(self), memory, self._state(), dict(self.__dict__)

    def _twin(self, memory: Any) -> Self:
        twin: Self = _rebuild(*self._parts(memory))
        return twin


def _rebuild(kind: Any, memory: Any, state: Any, attributes: dict[str, Any]) -> Any:
    """Make a machine in a given state, for unpickling and copying."""
    machine = kind.__new__(kind)
    HyperCore.__init__(machine, memory, *attributes["_made"])
    machine._set_state(state)
    machine.__dict__.update(attributes)
    return machine


def _registers(format: Any, levels: Any, cr4: int, efer: int) -> dict[str, Any]:
    """Give the levels of the guest's tables, and CR4 and EFER with what follows from the format."""
    if format == "pae":
        return {"levels": 3, "cr4": cr4 | 0x20, "efer": efer & ~0x500}
    if format == "x86-32":
        return {"levels": 2, "cr4": cr4 & ~0x20, "efer": efer & ~0x500}
    return {"levels": levels, "cr4": cr4 | (1 << 12 if levels == 5 else 0), "efer": efer}


def _processor(
    tlb: Any, data_cache: Any, rng: Any, tables: Any, vcpus: Any
) -> tuple[Geometry | None, tuple[Any, ...] | None]:
    """Give the geometry, and what `HyperCore` makes a processor of."""
    if tlb is None:
        if len(tuple(data_cache)) or rng is not None:
            raise InvalidValueError("data_cache and rng are for a processor: they need tlb=")
        return None, None
    geometry = presets.load(tlb) if isinstance(tlb, str) else tlb
    if not isinstance(geometry, Geometry):
        raise InvalidTypeError(f"tlb must be the name of a preset or a Geometry, got {tlb!r:.80}")
    data_cache = cache_levels(data_cache)
    mode = "native" if tables in ("shadow", "none") else "nested"
    seeds = seeds_of(rng, geometry, mode, cores_of(vcpus, None), len(data_cache))
    return geometry, (geometry, seeds, data_cache)


def _backing(backing: Any, end: int) -> npt.NDArray[np.uint8]:
    """One flag for each 2 MiB of memory."""
    regions = (end + REGION - 1) // REGION
    if isinstance(backing, str):
        if backing not in ("4K", "2M"):
            raise InvalidValueError(f'backing must be "4K" or "2M", got {backing!r:.80}')
        return np.full(regions, backing == "2M", dtype=np.uint8)
    flags = np.asarray(backing)
    if flags.dtype != bool or flags.shape != (regions,):
        raise InvalidTypeError(
            f"backing must be {regions} bools, one for each 2 MiB, got {flags.dtype} of shape "
            f"{flags.shape}"
        )
    return flags.astype(np.uint8)
