"""The MMU: address streams and system events through TLBs, walk caches and page tables."""

from __future__ import annotations

import copy
import operator
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, Self, SupportsIndex, TypeAlias, overload

import numpy as np
import numpy.typing as npt

from pyvirt._core.access import Access
from pyvirt._core.arrays import addresses
from pyvirt._core.builder import PageTables
from pyvirt._core.dtypes import COUNTER_DTYPE, EVENT_DTYPE
from pyvirt._core.mmu import MmuCore
from pyvirt._core.owner import MODES
from pyvirt._core.walker import DEFAULTS, Walker
from pyvirt.errors import InvalidTypeError, InvalidValueError, PageFaultError, PyvirtError
from pyvirt.mmu import presets
from pyvirt.mmu.accesses import Accesses
from pyvirt.mmu.geometry import Cache, Geometry
from pyvirt.mmu.mapping import FrameMapping, Mapping

if TYPE_CHECKING:
    from pyvirt._core.physmem import PhysMem

__all__ = ["MMU", "Snapshot"]

Kind: TypeAlias = Literal["r", "w", "x"]
OnFault: TypeAlias = Literal["mark", "stop", "raise"]
Mode: TypeAlias = Literal["native", "nested", "tlb-only"]

_OPTIONS = frozenset(DEFAULTS) - {"memo", "nested_memo", "format", "levels"}
_GUEST_LEVELS = {"x86-64": 4, "pae": 3, "x86-32": 2}
_MOV_CR0, _MOV_CR4, _MAP, _UNMAP, _PROTECT = 17, 18, 33, 34, 35
_GLOBAL = 0x100


class Snapshot:
    """The state of an MMU at some time, for `MMU.restore`; it can be kept and pickled."""

    __slots__ = ("_made", "_state")

    def __init__(self, made: Any, state: Any) -> None:
        self._made = made
        self._state = state


class MMU(MmuCore):
    """Cores with TLBs and walk caches, and vCPUs that access memory through page tables.

    Parameters
    ----------
    mode : {"native", "nested", "tlb-only"}
        Translation by the vCPU's tables; by the guest's tables and the nested ones; or TLBs
        alone over pages of 4 KiB that translate to themselves, or as `mapping` says, to compare
        with simulators that know no tables.
    memory : PhysicalMemory
        Holds the tables; simulated or a real image. Not for ``"tlb-only"``.
    cr3 : int
        CR3 of every vCPU at first; guest-physical if nested.
    nested_root : int
        EPTP or nCR3.
    nested_format : {"ept", "npt"}
    guest_format : {"x86-64", "pae", "x86-32"}
    guest_levels, nested_levels : int
        4 or 5; 3 for PAE, 2 for 32-bit tables.
    tlb : str or Geometry, default "reference"
        The caches of a core: a preset (`pyvirt.mmu.presets.names`) or a geometry.
    vcpus : int, default 1
    cores : int, optional
        As many as vCPUs by default; vCPU i starts on core i modulo `cores`.
    vpids : bool, default True
        Whether vCPU i of nested translation is tagged with VPID (AMD: ASID) i + 1, or all with 0,
        whose entries VM entry and exit drop.
    set_ad : bool, default True
        Set A and D bits in the tables, in `memory`. False: they are not modelled, and no access
        walks for the sake of D.
    ept_ad : bool, default False
        A and D bits of EPT (EPTP bit 6): reads of guest tables count as writes there.
    pml : bool, default False
        Page-modification logging; needs `ept_ad`.
    precision : {"exact", "conservative"}
        Invalidations drop what the manual demands, or the next larger kind that it defines, as it
        permits.
    prefetch : bool or "auto", default "auto"
        Whether the simulator asks its own memory ahead for the tables that walks will read; it
        changes nothing but the speed.
    tables : PageTables, optional
        What MAP, UNMAP and PROTECT events edit.
    rng : int, SeedSequence or Generator, optional
        Seeds the arrays with random replacement; None is 0.
    data_cache : sequence of Cache, default ()
        The last levels of data caches (L3; L2 and L3; L1, L2 and L3) for the references of walks,
        by 64-byte lines.
    records : ndarray of `pyvirt.mmu.RECORD_DTYPE`, optional
        A ring buffer that receives the references of walks; `records_written` counts them.
    mapping : callable, optional
        For ``"tlb-only"``: the frame of every page, ``frames = mapping(pages)``. It gets a
        one-dimensional array of page numbers (uint64, ``va >> 12``), and returns an integer array
        of that shape with frame numbers below 2**40. It must be pure: the same page has the same
        frame whenever and beside whichever others it is asked for; NumPy expressions, ufuncs and
        Numba functions over arrays will do. None: a page lies in the frame of its number, of
        which the low 40 bits count.
    **options
        ``pa_width``, ``cr0``, ``cr4``, ``efer``, ``pkru``, ``pkrs``, ``ac``, ``vendor``,
        ``large_1g``, ``exec_only``, ``mbec`` as in `pyvirt.Walker`.

    Attributes
    ----------
    counters : ndarray of COUNTER_DTYPE, shape (cores,)
        What was counted, live; read-only. `stats` gives the sum.
    mem, geometry
        The memory, and the geometry of the caches.

    Raises
    ------
    InvalidTypeError, InvalidValueError
        For arguments that are not as described, and later for what `mapping` returns; the
        accesses are made then, and what was given as ``out=`` is not valid.

    Notes
    -----
    An access looks up the TLB levels in order; in a level all arrays that serve its kind, in
    the order of the geometry, 4 KiB pages before larger ones. A match that lacks a right or D
    walks again; a hit beyond level 1 is filled into the levels before, and a walk into all. Walk
    caches are asked from the PDE upwards, and filled once the walk has succeeded. What is tagged
    with what and which operation drops what: SDM vol. 3, 5.10 and 30.4 (4.10 and 28.3 in older
    editions), AMD APM vol. 2, 15.16. A 4 MiB page of 32-bit tables is cached as two of 2 MiB. Of a
    page that faults, its own translations are dropped.

    `mapping` is asked for no more than what is given out: the addresses of accesses that did not
    fault, and ``value`` of `entries`. Hits, victims and counters do not depend on it, nor is it
    part of a snapshot. Copies share it. It is pickled with the MMU, which `pickle` can do with a
    function from the top level of a module; with another, such as a lambda, it is an error.

    Two threads may use one MMU: a call waits for the other's.
    """

    tables: PageTables | None = None

    def __init__(
        self,
        mode: Mode = "native",
        memory: PhysMem | None = None,
        *,
        cr3: int = 0,
        nested_root: int = 0,
        nested_format: str = "ept",
        guest_format: str = "x86-64",
        guest_levels: int | None = None,
        nested_levels: int = 4,
        tlb: str | Geometry = "reference",
        vcpus: int = 1,
        cores: int | None = None,
        vpids: bool = True,
        set_ad: bool = True,
        ept_ad: bool = False,
        pml: bool = False,
        precision: Literal["exact", "conservative"] = "exact",
        prefetch: bool | Literal["auto"] = "auto",
        tables: PageTables | None = None,
        rng: Any = None,
        data_cache: Sequence[Cache] = (),
        records: npt.NDArray[Any] | None = None,
        mapping: Mapping | None = None,
        **options: Any,
    ) -> None:
        for name, value in (("vpids", vpids), ("set_ad", set_ad), ("pml", pml)):
            _boolean(value, name)
        frames_of = None if mapping is None else FrameMapping(mapping)
        if tables is not None and not isinstance(tables, PageTables):
            raise InvalidTypeError(f"tables must be a PageTables, got {tables!r:.80}")
        if tables is not None and tables.mem is not memory:
            raise InvalidValueError("tables must be in the same memory")
        unknown = options.keys() - _OPTIONS
        if unknown:
            raise InvalidTypeError(
                f"unknown option {min(unknown)!r}; accepted are {', '.join(sorted(_OPTIONS))}"
            )
        _choice(mode, "mode", MODES)
        _choice(precision, "precision", ("exact", "conservative"))
        _choice(guest_format, "guest_format", _GUEST_LEVELS)
        _choice(nested_format, "nested_format", ("ept", "npt"))
        if pml and not (mode == "nested" and nested_format == "ept" and ept_ad and set_ad):
            raise InvalidValueError(
                "pml needs mode='nested', nested_format='ept', ept_ad=True and set_ad=True"
            )
        if frames_of is not None and mode != "tlb-only":
            raise InvalidValueError(f"mapping needs mode='tlb-only', got mode={mode!r}")
        geometry = presets.load(tlb) if isinstance(tlb, str) else tlb
        if not isinstance(geometry, Geometry):
            raise InvalidTypeError(f"tlb must be the name of a preset or a Geometry, got {tlb!r}")
        data_cache = cache_levels(data_cache)
        shared = {**DEFAULTS, **options, "ept_ad": ept_ad, "set_ad": set_ad}
        guest = {
            **shared,
            "format": guest_format,
            "levels": _GUEST_LEVELS[guest_format] if guest_levels is None else guest_levels,
        }
        if mode == "tlb-only":
            # only the width of addresses counts: 57 bits, sign-extended
            guest.update(format="x86-64", levels=5, set_ad=False, pkru=0, pkrs=0)
        host = {**shared, "format": nested_format, "levels": nested_levels}
        super().__init__(
            mode,
            memory,
            geometry,
            guest,
            host if mode == "nested" else None,
            cr3,
            nested_root,
            vcpus,
            cores,
            vpids,
            pml,
            precision == "conservative",
            prefetch,
            seeds_of(rng, geometry, mode, cores_of(vcpus, cores), len(data_cache)),
            data_cache,
            records,
            frames_of,
        )
        self.tables = tables

    @classmethod
    def over(cls, space: Walker, **options: Any) -> Self:
        """Make an MMU over the tables of an address space.

        Parameters
        ----------
        space : AddressSpace or NestedAddressSpace
            Its tables, formats and control registers are taken over.
        **options
            The other parameters of `MMU`.
        """
        if not isinstance(space, Walker):
            raise InvalidTypeError(f"space must be an address space, got {space!r:.80}")
        own = space.options_of()
        taken = {name: own[name] for name in _OPTIONS if name not in ("ept_ad", "set_ad")}
        taken.update(cr3=space.root, guest_format=own["format"], guest_levels=own["levels"])
        if space.outer is None:
            return cls("native", space.mem, **{**taken, **options})
        if space.outer.outer is not None:
            raise InvalidValueError("an MMU has at most two dimensions")
        outer = space.outer.options_of()
        taken.update(
            nested_root=space.outer.root,
            nested_format=outer["format"],
            nested_levels=outer["levels"],
            ept_ad=outer["ept_ad"],
            exec_only=outer["exec_only"],
            mbec=outer["mbec"],
        )
        return cls("nested", space.mem, **{**taken, **options})

    @property
    def mapping(self) -> Mapping | None:
        """The frames of pages in mode ``"tlb-only"``; None where a page is its own frame."""
        return None if self.frames_of is None else self.frames_of.function

    # --- accesses ---

    @overload
    def translate(
        self,
        vas: int,
        access: Kind = ...,
        user: bool = ...,
        *,
        vcpu: int = ...,
        on_fault: OnFault = ...,
    ) -> Access: ...
    @overload
    def translate(
        self,
        vas: npt.ArrayLike,
        access: Kind = ...,
        user: bool = ...,
        *,
        vcpu: int = ...,
        out: Accesses | None = ...,
        on_fault: OnFault = ...,
    ) -> Accesses: ...
    def translate(
        self,
        vas: Any,
        access: Kind = "r",
        user: bool = False,
        *,
        vcpu: int = 0,
        out: Accesses | None = None,
        on_fault: OnFault = "mark",
    ) -> Access | Accesses:
        """Run one access or many of one kind.

        Parameters
        ----------
        vas : int or array of int, shape (n,)
            Addresses; a batch runs compiled, without the GIL.
        access : {"r", "w", "x"}
            Load, store or fetch.
        user : bool, default False
            Whether at CPL 3.
        vcpu : int, default 0
        out : Accesses, optional
            Arrays for the results of a batch (`Accesses.empty`), so that nothing is allocated.
        on_fault : {"mark", "stop", "raise"}
            Faults are codes in the result (mark); a batch ends at the first one and leaves code
            15, `Fault.SKIPPED`, in the rest (stop); or it raises `PageFaultError`, with the
            accesses up to that one made.

        Returns
        -------
        Access or Accesses
            The scalar form for an int.

        Raises
        ------
        PageFaultError
            With ``on_fault="raise"``.
        InvalidTypeError, InvalidValueError
            For arguments that are not as described; nothing has happened then.
        """
        _check_on_fault(on_fault)
        if isinstance(vas, SupportsIndex) and not isinstance(vas, np.ndarray):
            if out is not None:
                raise InvalidTypeError("out is for batches; one address returns an Access")
            one = self.translate_one(operator.index(vas), access, user, vcpu)
            if on_fault == "raise" and not one.ok:
                raise PageFaultError(one.va, one.code)
            return one
        vas = addresses(vas, "vas")
        if out is None:
            out = Accesses.empty(len(vas))
        else:
            _check_out(out)
        done = self.translate_into(
            vas, access, user, vcpu, out.pa, out.code, stop=on_fault != "mark"
        )
        if done < len(vas):
            out.pa[done:] = 0
            out.code[done:] = 15
        if on_fault == "raise" and done and out.code[done - 1] & 15:
            raise PageFaultError(int(vas[done - 1]), int(out.code[done - 1]))
        return out

    def count(
        self, vas: npt.ArrayLike, access: Kind = "r", user: bool = False, *, vcpu: int = 0
    ) -> int:
        """Run many accesses for what they do to the counters alone.

        Parameters
        ----------
        vas, access, user, vcpu
            As in `translate`.

        Returns
        -------
        int
            Accesses made.
        """
        return self.translate_into(vas, access, user, vcpu)

    def run(
        self,
        events: npt.NDArray[Any] | Iterable[npt.NDArray[Any]],
        *,
        out: Accesses | None = None,
        on_fault: OnFault = "mark",
    ) -> int:
        """Run a stream of accesses and system events.

        Parameters
        ----------
        events : ndarray of `pyvirt.traces.EVENT_DTYPE`, or an iterable of such arrays
            For example a trace reader: memory for one chunk suffices for any length.
        out : Accesses, optional
            For one array of events: the results of its accesses; other events get 0. An access
            that crosses a page has the address of its first part, and a fault of either.
        on_fault : {"mark", "stop", "raise"}
            As in `translate`.

        Returns
        -------
        int
            Events done.

        Raises
        ------
        PageFaultError
            With ``on_fault="raise"``; its ``va`` is the address of the access, even if the page
            that fails is the second one that it touches.
        InvalidValueError, OutsideMemoryError, MappingError
            For an event that cannot be; those before it are done.
        """
        _check_on_fault(on_fault)
        self._arguments()
        if out is not None:
            _check_out(out)
        if isinstance(events, np.ndarray):
            done, _ = self._run_array(events, out, on_fault, 0)
            return done
        if out is not None:
            raise InvalidTypeError("out is for one array of events")
        if not isinstance(events, Iterable):
            raise InvalidTypeError(
                f"events must be an array of EVENT_DTYPE or an iterable of them, got {events!r:.80}"
            )
        total = 0
        for chunk in events:
            done, fault = self._run_array(chunk, None, on_fault, total)
            total += done
            if fault:
                break
        return total

    def _run_array(
        self, events: npt.NDArray[Any], out: Accesses | None, on_fault: OnFault, position: int
    ) -> tuple[int, bool]:
        """Run one array; give events done, and whether a fault ended it.

        `position` is the number of its first event, for messages.
        """
        _check_events(events)
        done = 0
        stop = on_fault != "mark"
        if out is None and stop:
            out = Accesses.empty(len(events))
        while True:
            rest = slice(done, None)
            part, rare = self.run_into(
                events[rest],
                None if out is None else out.pa[rest],
                None if out is None else out.code[rest],
                stop,
                position + done,
            )
            done += part
            if rare:
                self._rare(events[done], position + done)
                if out is not None:
                    out.pa[done] = out.code[done] = 0
                done += 1
                if done < len(events):
                    continue
            break
        if out is None or not stop or done == 0 or not out.code[done - 1] & 15:
            return done, False
        code = int(out.code[done - 1])
        out.pa[done:] = 0
        out.code[done:] = 15
        if on_fault == "raise":
            raise PageFaultError(int(events["addr"][done - 1]), code)
        return done, True

    def _rare(self, event: Any, position: int) -> None:
        """Carry out an event that the compiled loop leaves to Python."""
        op, arg = int(event["op"]), int(event["arg"])
        addr, value = int(event["addr"]), int(event["value"])
        try:
            if op == _MOV_CR0:
                self.mov_cr0(value, int(event["vcpu"]))
            elif op == _MOV_CR4:
                self.mov_cr4(value, int(event["vcpu"]))
            elif self.tables is None:
                if self.mode != "tlb-only":
                    raise InvalidValueError("edits of tables need MMU(tables=...)")
            elif op == _MAP:
                self.tables.map(
                    [addr],
                    [value],
                    page_shift=int(event["size"]),
                    rights=_rights(arg),
                    attrs=_GLOBAL if arg & 16 else 0,
                    overwrite=True,
                )
            elif op == _UNMAP:
                self.tables.unmap(addr, value)
            else:
                self.tables.protect(addr, value, _rights(arg))
        except PyvirtError as error:
            if isinstance(error, PageFaultError):
                raise
            raise type(error)(f"event {position} (op {op}, addr {addr:#x}): {error}") from error

    # --- results and state ---

    def stats(self) -> Any:
        """Give the sum of the counters of all cores, a record of `pyvirt.mmu.COUNTER_DTYPE`."""
        self._arguments()
        total = np.zeros((), COUNTER_DTYPE)
        for name in COUNTER_DTYPE.names or ():
            total[name] = self.counters[name].sum(axis=0)
        return total[()]

    def snapshot(self) -> Snapshot:
        """Give the state of cores and vCPUs. What is in memory is not part of it."""
        return Snapshot(self._signature(), self._state())

    def restore(self, snapshot: Snapshot) -> None:
        """Go back to a snapshot of this MMU, or of one that was made with the same arguments."""
        if not isinstance(snapshot, Snapshot):
            raise InvalidTypeError(f"snapshot must be a Snapshot, got {snapshot!r:.80}")
        if snapshot._made != self._signature():
            raise InvalidValueError("this snapshot is of an MMU with other arguments")
        self._set_state(snapshot._state)

    def _signature(self) -> tuple[Any, ...]:
        """What two MMUs must share to take each other's snapshots."""
        (mode, _, geometry, guest, host, _, _, vcpus, cores, vpids, pml, conservative, _, _) = (
            self._arguments()[:14]
        )
        data_cache = self._arguments()[14]
        return (mode, geometry, guest, host, vcpus, cores, vpids, pml, conservative, data_cache)

    def __copy__(self) -> Self:
        """Copy the caches and registers; the memory and the tables are shared."""
        return self._twin(self.mem, dict(self.__dict__))

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        mem = copy.deepcopy(self.mem, memo)
        return self._twin(mem, copy.deepcopy(self.__dict__, memo))

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, self._parts(self.mem, dict(self.__dict__))

    def _parts(self, mem: PhysMem | None, attributes: dict[str, Any]) -> tuple[Any, ...]:
        """What `_rebuild` takes."""
        return type(self), self._arguments(), mem, self._state(), attributes

    def _twin(self, mem: PhysMem | None, attributes: dict[str, Any]) -> Self:
        twin: Self = _rebuild(*self._parts(mem, attributes))
        return twin


def _rebuild(
    kind: Any, arguments: tuple[Any, ...], mem: Any, state: Any, attributes: dict[str, Any]
) -> Any:
    """Make an MMU in a given state, for unpickling and copying."""
    mmu = kind.__new__(kind)
    MmuCore.__init__(mmu, arguments[0], mem, *arguments[2:])
    mmu._set_state(state)
    mmu.__dict__.update(attributes)
    return mmu


def _choice(value: object, name: str, accepted: Iterable[str]) -> None:
    if not isinstance(value, str) or value not in accepted:
        raise InvalidValueError(f"{name} must be one of {', '.join(accepted)}, got {value!r:.80}")


def cache_levels(given: object) -> tuple[Cache, ...]:
    """Check what was given as `data_cache`."""
    caches = tuple(given) if isinstance(given, Iterable) else (given,)
    if len(caches) > 3 or not all(isinstance(cache, Cache) for cache in caches):
        raise InvalidValueError(
            f"data_cache must be at most three Cache objects, got {given!r:.80}"
        )
    return caches


def cores_of(vcpus: object, cores: object) -> int:
    """How many cores to seed; what is no count is refused later, with the right words."""
    wanted = vcpus if cores is None else cores
    return max(1, min(operator.index(wanted), 4096)) if isinstance(wanted, SupportsIndex) else 1


def _boolean(value: object, name: str) -> None:
    if not isinstance(value, bool | np.bool_ | int):
        raise InvalidTypeError(f"{name} must be True or False, got {value!r:.80}")


def _check_events(events: object) -> None:
    if not isinstance(events, np.ndarray) or events.dtype != EVENT_DTYPE or events.ndim != 1:
        raise InvalidTypeError(
            "events must be one-dimensional arrays of EVENT_DTYPE, got "
            f"{getattr(events, 'dtype', type(events).__name__)}"
        )


def _check_out(out: object) -> None:
    if not isinstance(out, Accesses):
        raise InvalidTypeError(f"out must be an Accesses, not {type(out).__name__}")
    for name in ("pa", "code"):
        if not isinstance(getattr(out, name), np.ndarray):
            raise InvalidTypeError(f"out.{name} must be an ndarray, got {getattr(out, name)!r:.80}")


def _check_on_fault(on_fault: object) -> None:
    if not isinstance(on_fault, str) or on_fault not in ("mark", "stop", "raise"):
        raise InvalidValueError(f"on_fault must be mark, stop or raise, got {on_fault!r:.80}")


def _rights(bits: int) -> str:
    return "".join(letter for i, letter in enumerate("rwxu") if bits >> i & 1)


def _arrays(geometry: Geometry, mode: str) -> Iterator[Cache]:
    """Every array of a core, in the order in which they are seeded."""
    for array in geometry.tlbs:
        yield array.cache
    walk_caches = {"native": [geometry.guest], "nested": [geometry.guest, geometry.host]}
    for cache in walk_caches.get(mode, []):
        if cache is not None:
            yield from [cache.cache] if cache.cache else cache.levels.values()
    if mode == "nested" and geometry.nested_tlb is not None:
        yield geometry.nested_tlb


def seeds_of(
    rng: Any, geometry: Geometry, mode: str, cores: int, data_caches: int
) -> npt.NDArray[np.uint64]:
    """One seed for each array, drawn in a fixed order."""
    try:
        generator = np.random.default_rng(0 if rng is None else rng)
    except (TypeError, ValueError) as error:
        raise InvalidTypeError(f"rng must be a seed or a Generator, got {rng!r:.80}") from error
    count = cores * len(list(_arrays(geometry, mode))) + data_caches
    seeds = [int(generator.integers(1, 1 << 64, dtype=np.uint64)) for _ in range(count)]
    return np.array(seeds, dtype=np.uint64)
