"""The system as a user sees it: actions of processes in, events out."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from pyvirt._core.guestos.engine import GuestCore
from pyvirt._core.physmem import PhysMem
from pyvirt.errors import InvalidTypeError, InvalidValueError
from pyvirt.guest import profiles

__all__ = ["GuestOS", "Initial"]

Stores: TypeAlias = Literal["direct-map", "store-table", "both"]
Huge: TypeAlias = Literal["never", "always", "madvise"]

_STORES = {"direct-map": 0, "store-table": 1, "both": 2}
_HUGE = {"never": 0, "always": 1, "madvise": 2}
_RIGHTS = {"r": 1, "w": 2, "x": 4}
_HUGE_AREA = 8
_LOAD, _MOV_CR0, _MOV_CR4, _VM_EXIT = 1, 17, 18, 26
_CR0 = 0x80050033
_EFER = 0xD00
_PAE, _PGE, _LA57, _PCIDE, _SMEP, _SMAP = (1 << bit for bit in (5, 7, 12, 17, 20, 21))
_PAGE = 4096
_PORT = 0x1F0
#: Where an executable that is not position-independent begins.
_TEXT = 0x400000


class Initial(NamedTuple):
    """What an engine must be made with, for the events to be valid.

    Attributes
    ----------
    cr0, cr3, cr4, efer : int
        Of every vCPU at the start.
    levels : int
        Of page tables.
    vcpus : int
        How many.
    """

    cr0: int
    cr3: int
    cr4: int
    efer: int
    levels: int
    vcpus: int


class GuestOS(GuestCore):
    """A small operating system that turns what processes do into events.

    Parameters
    ----------
    memory : PhysicalMemory
        Empty, from address 0, 16 MiB at least. The system keeps its tables in it, as it knows
        them; an engine runs on a copy of its own (`boot_memory`).
    profile : str, default "linux-6.1"
        Whose rules are the defaults (`pyvirt.guest.profiles`).
    pcid : bool, default False
        Address spaces are tagged: six numbers a vCPU, taken in turn and used again; loads of CR3
        flush only where an entry could be stale.
    kpti : bool, default False
        Page-table isolation: user code runs on a root of its own, and CR3 is loaded at each
        kernel entry and exit.
    huge : {"never", "always", "madvise"}
        Whether a first touch maps 2 MiB where the area has room: in all areas, or in those that
        `mmap` made with ``huge=True``.
    table_stores : {"direct-map", "store-table", "both"}
        How the kernel writes an entry. ``direct-map``, as a kernel does: an access at the entry's
        address in its direct map, with data (`pyvirt.traces.Arg`), which an engine must carry
        out: `pyvirt.Hypervisor` does. ``store-table``: `Op.STORE_TABLE`, which every engine knows.
        ``both``: an access without data, and then `Op.STORE_TABLE`: for `pyvirt.MMU`, whose
        accesses move no data.
    levels : {4, 5}
        Of page tables.
    vcpus : int, default 1
        1 to 64.
    rng : int, SeedSequence or Generator, optional
        Moves each process's areas by a random number of pages, as the kernel randomises them.
        None: all begin at the same place.
    **rules
        Instead of the profile's: ``registers`` (words saved at a kernel entry), ``handler_loads``
        (loads of kernel data in a handler), ``page_accesses`` (of zeroing or copying a page: 0 or
        a power of two up to 512; data are exact with 512), ``flush_ceiling`` (more pages than
        this are flushed with a load of CR3), ``asids``, ``fault_around`` (pages of a file that
        one fault maps), ``reclaim_batch``, ``zero_page`` (reads of what was never written map
        one shared page), ``fork_flush`` (fork flushes all, not page by page), ``delivery``
        (faults and interrupts make the accesses of their delivery), ``broadcast`` (shoot-downs
        are one INVLPG for all vCPUs).

    Attributes
    ----------
    initial : Initial
        Registers that an engine must begin with.
    profile : str
        As given.
    rules : dict
        The numbers in use.

    Raises
    ------
    InvalidTypeError, InvalidValueError
        For arguments that are not as described.
    FrameExhaustedError
        An action that needs more frames than are free; it changes nothing, but for what `touch`
        did before. A few frames are always kept.
    MappingError
        Addresses that nothing maps or whose rights forbid the access, and areas that overlap.
    MemoryError
        The host has no memory: the system cannot be used any more.

    Notes
    -----
    The system knows its tables and decides by them alone whether an access faults, so that one
    recording is valid wherever it runs: natively, on shadow or nested tables. A faulting access is
    followed by its handler's events (`Arg.HANDLER`) and by the access again. What hardware writes,
    A and D, the events never depend on: entries are changed by operations on what is there. Where
    reclaim must know A, it takes its own estimate: set since the last time it was cleared, as on a
    processor without TLB.

    The model is Linux 6.1's memory management; `docs/guide/guest.md` says what each action does
    and where it is simpler. Data of devices are not modelled: a page that was read or swapped in
    has whatever its frame held.

    Examples
    --------
    >>> import pyvirt as pv
    >>> system = pv.GuestOS(pv.PhysicalMemory("64MiB"))
    >>> process = system.spawn()
    >>> heap = system.mmap(process, 16 << 12)
    >>> system.touch(process, heap + 4096 * np.arange(16), 2)
    16
    >>> machine = pv.Hypervisor(system.boot_memory(), **system.initial._asdict())
    >>> machine.run(system.take()) > 0
    True
    >>> int(machine.counters["pf_guest"][0])
    16
    """

    def __init__(
        self,
        memory: PhysMem,
        *,
        profile: str = "linux-6.1",
        pcid: bool = False,
        kpti: bool = False,
        huge: Huge = "never",
        table_stores: Stores = "direct-map",
        levels: int = 4,
        vcpus: int = 1,
        rng: Any = None,
        **rules: Any,
    ) -> None:
        numbers = profiles.read(profile).get("rules")
        if numbers is None:
            raise InvalidValueError(f"profile {profile!r} is one of programs, not of a kernel")
        self.profile = profile
        self.rules: dict[str, Any] = {name: entry.value for name, entry in numbers.items()}
        unknown = rules.keys() - self.rules.keys()
        if unknown:
            raise InvalidTypeError(
                f"unknown rule {min(unknown)!r}; there are {', '.join(sorted(self.rules))}"
            )
        self.rules |= rules
        for name, value in (
            ("pcid", pcid),
            ("kpti", kpti),
            *((name, self.rules[name]) for name in ("zero_page", "fork_flush", "delivery")),
            ("broadcast", self.rules["broadcast"]),
        ):
            if not isinstance(value, (bool, np.bool_)):
                raise InvalidTypeError(f"{name} must be True or False, got {value!r:.80}")
        core = {
            **self.rules,
            "pcid": pcid,
            "isolation": kpti,
            "stores": _choice(table_stores, "table_stores", _STORES),
            "huge": _choice(huge, "huge", _HUGE),
        }
        try:
            self._rng = None if rng is None else np.random.default_rng(rng)
        except (TypeError, ValueError) as error:
            raise InvalidTypeError(f"rng must be a seed or a Generator, got {rng!r:.80}") from error
        super().__init__(memory, core, levels, vcpus)
        cr4 = _PAE | _PGE | _SMEP | _SMAP
        cr4 |= (_PCIDE if pcid else 0) | (_LA57 if levels == 5 else 0)
        self.initial = Initial(_CR0, self.boot_root, cr4, _EFER, levels, vcpus)
        self._boot = memory.copy()

    def boot_memory(self) -> Any:
        """Give a copy of memory as it was at the start.

        Engines write to the memory that they run on: each needs its own. A stream begins with
        the first event that this system made, so that an engine must run all of them, in order.

        Returns
        -------
        PhysicalMemory
            Of the class that was given.
        """
        return self._boot.copy()

    # --- processes ---

    def spawn(self, pages: int = 0) -> int:
        """Make a process, as the kernel makes the first one.

        Parameters
        ----------
        pages : int, default 0
            Of an area to read and write that it begins with, above 0x400000.

        Returns
        -------
        int
            Its number. It runs when it acts for the first time, or with `switch_to`.
        """
        if pages:
            pages = _count(pages, "pages")
        process = self.new_process()
        if pages:
            self.mmap(process, pages * _PAGE, va=_TEXT)
        return process

    def fork(self, process: int, vcpu: int | None = None) -> int:
        """Copy a process; both share their pages until one of them writes.

        Leaves that the parent may write lose W in both, and all is flushed (with
        ``fork_flush=False`` page by page). A write copies the page, or gives W back to the last
        owner. What only reads a file is not copied: the child finds it in the page cache.

        Parameters
        ----------
        process : int
            The parent.
        vcpu : int, optional
            Where it runs; default: where it is current, else on vCPU 0, to which it is switched
            then. The same holds for all actions of processes.

        Returns
        -------
        int
            The child, which is not current anywhere yet.
        """
        return super().fork(process, vcpu)

    def exec(
        self,
        process: int,
        *,
        text: int | None = None,
        data: int = 4,
        stack: int = 32,
        vcpu: int | None = None,
    ) -> None:
        """Begin another program: a new address space, and the old one torn down.

        Parameters
        ----------
        process : int
        text : int, optional
            A file (`file`), mapped to read and execute at 0x400000. None: no such area.
        data, stack : int
            Pages of an area to read and write after the text, and of the stack; 0: none.
        vcpu : int, optional
            As in `fork`.
        """
        data, stack = _count(data, "data", 0), _count(stack, "stack", 0)
        pages = 0 if text is None else self.file_pages(text)
        super().exec_space(process, vcpu)
        if text is not None:
            self.mmap(process, pages * _PAGE, rights="rx", file=text, va=_TEXT)
        shift = self._shift()
        if data:
            self.mmap(process, data * _PAGE, va=_TEXT + (pages + 512) * _PAGE)
        if stack:
            end = (1 << 47 if self.initial.levels == 4 else 1 << 56) - _PAGE * (16 + shift)
            self.mmap(process, stack * _PAGE, va=end - stack * _PAGE)

    def _shift(self) -> int:
        """Pages by which areas are moved."""
        return 0 if self._rng is None else int(self._rng.integers(0, 1 << 14))

    def exit(self, process: int) -> None:
        """End a process: its pages and tables are freed, and no process is current in its place.

        Parameters
        ----------
        process : int
        """
        super().exit(process)

    def switch_to(
        self,
        process: int | None,
        vcpu: int = 0,
        cause: Literal["timer", "syscall"] = "timer",
    ) -> None:
        """Let a vCPU run another process.

        Parameters
        ----------
        process : int or None
            None: nobody, on the kernel's own tables. A process may run on several vCPUs, as one
            with threads does.
        vcpu : int, default 0
        cause : {"timer", "syscall"}
            Whether it was interrupted, which exits to the hypervisor, or waits for something.
        """
        self.run_process(process, vcpu, cause)

    # --- areas ---

    def file(self, pages: int) -> int:
        """Make a file that can be mapped; its pages come into memory when they are touched.

        Parameters
        ----------
        pages : int
            Of 4 KiB.

        Returns
        -------
        int
            Its number.
        """
        return self.new_file(pages)

    def mmap(
        self,
        process: int,
        size: int,
        *,
        rights: str = "rw",
        va: int | None = None,
        file: int | None = None,
        offset: int = 0,
        huge: bool = False,
        vcpu: int | None = None,
    ) -> int:
        """Map an area. Tables change when it is touched.

        Parameters
        ----------
        process : int
        size : int
            Bytes, whole pages.
        rights : str
            ``"r"``, ``"rw"``, ``"rx"`` or ``"rwx"``.
        va : int, optional
            Where; default: the highest free place, as Linux chooses.
        file : int, optional
            Whose pages, private: a write copies them. None: anonymous.
        offset : int
            First page of the file.
        huge : bool
            With ``GuestOS(huge="madvise")``: touches may map 2 MiB here.
        vcpu : int, optional
            As in `fork`.

        Returns
        -------
        int
            The address.
        """
        bits = _rights(rights) | (_HUGE_AREA if huge else 0)
        return self.map_area(process, size, bits, file, offset, va, vcpu)

    def munmap(self, process: int, va: int, size: int, vcpu: int | None = None) -> None:
        """Unmap a range: leaves are cleared, tables that no area needs are freed, then flushed.

        Parameters
        ----------
        process : int
        va, size : int
            Whole pages; holes are no error. A huge page that sticks out is split.
        vcpu : int, optional
            As in `fork`.
        """
        self.unmap(process, va, size, vcpu)

    def mprotect(
        self, process: int, va: int, size: int, rights: str, vcpu: int | None = None
    ) -> None:
        """Change the rights of a range, which areas must cover.

        Parameters
        ----------
        process : int
        va, size : int
            Whole pages.
        rights : str
            As in `mmap`.
        vcpu : int, optional
            As in `fork`.
        """
        self.protect(process, va, size, _rights(rights), vcpu)

    # --- what user code does ---

    def touch(
        self,
        process: int,
        vas: npt.ArrayLike,
        op: npt.ArrayLike = _LOAD,
        *,
        size: npt.ArrayLike = 8,
        values: npt.ArrayLike | None = None,
        vcpu: int | None = None,
    ) -> int:
        """Access memory at CPL 3, with the page faults that this takes.

        Parameters
        ----------
        process : int
        vas : int or array of int
            Addresses.
        op : int or array
            `pyvirt.traces.Op` of accesses; default: a load.
        size : int or array
            Bytes, within one page.
        values : int or array, optional
            What stores write; without it memory keeps what it has.
        vcpu : int, optional
            As in `fork`.

        Returns
        -------
        int
            Page faults.

        Raises
        ------
        MappingError, FrameExhaustedError, InvalidValueError
            For an access that cannot be, named by its number; those before it are made.
        """
        addresses = np.atleast_1d(np.asarray(vas)) if np.isscalar(vas) else vas
        count = len(addresses)  # type: ignore[arg-type]
        return self.make_accesses(
            process,
            addresses,
            _column(op, "op", count),
            _column(size, "size", count),
            None if values is None else _column(values, "values", count),
            vcpu,
        )

    def syscall(
        self, process: int, loads: int = 0, *, times: int = 1, vcpu: int | None = None
    ) -> None:
        """Enter the kernel and leave it, with some loads of kernel data between."""
        self.kernel(process, "syscall", loads, vcpu, times)

    def timer(self, vcpu: int = 0) -> None:
        """Interrupt a vCPU, which exits to the hypervisor."""
        self.kernel(None, "timer", int(self.rules["handler_loads"]), vcpu)

    def cpuid(self, times: int = 1, vcpu: int = 0) -> None:
        """Execute an instruction that always exits, such as CPUID or a write of an MSR."""
        self.raw(_VM_EXIT, 0, vcpu, times)

    def io(
        self, process: int, count: int = 1, *, port: int = _PORT, vcpu: int | None = None
    ) -> None:
        """Access an I/O port some times, in a system call."""
        self.access_port(process, port, count, vcpu)

    def flush_all(self, vcpu: int = 0) -> None:
        """Flush all of a vCPU's TLB, global pages too: CR4.PGE is cleared and set again."""
        self.raw(_MOV_CR4, self.initial.cr4 & ~_PGE, vcpu)
        self.raw(_MOV_CR4, self.initial.cr4, vcpu)

    def task_switched(self, vcpu: int = 0) -> None:
        """Set CR0.TS and clear it, as kernels did that restored FPU registers at first use."""
        self.raw(_MOV_CR0, self.initial.cr0 | 8, vcpu)
        self.raw(_MOV_CR0, self.initial.cr0, vcpu)

    # --- memory management ---

    def reclaim(self, pages: int, vcpu: int = 0) -> int:
        """Take pages that were not used since the hand last passed.

        The hand goes over the frames, at most twice round: where a mapping was used (by the
        system's estimate of A) it clears A, without a flush; else it unmaps the frame from all
        that map it, with one flush for each ``reclaim_batch`` pages, and frees it. The next
        touch reads it back.

        Parameters
        ----------
        pages : int
            How many.
        vcpu : int, default 0
            Where the kernel's thread runs.

        Returns
        -------
        int
            Pages that were taken.
        """
        return super().reclaim(pages, vcpu)

    def promote(
        self, process: int, limit: int = 1 << 30, *, max_none: int = 511, vcpu: int = 0
    ) -> int:
        """Make huge pages of small ones, as khugepaged does.

        Parameters
        ----------
        process : int
        limit : int
            Regions of 2 MiB at most.
        max_none : int, default 511
            Small pages of a region that may be absent (Linux's ``max_ptes_none``).
        vcpu : int, default 0
            Where the kernel's thread runs.

        Returns
        -------
        int
            Regions that were promoted. One with a page that is shared, of a file or swapped out
            stays as it is.
        """
        return self.promote_regions(process, limit, max_none, vcpu)

    def split(self, process: int, va: int, vcpu: int | None = None) -> bool:
        """Map a huge page by small ones, as the kernel does when only a part of it changes.

        Parameters
        ----------
        process : int
        va : int
            An address in it.
        vcpu : int, optional
            As in `fork`.

        Returns
        -------
        bool
            Whether a huge page was there.
        """
        return self.split_page(process, va, vcpu)


def _choice(value: object, name: str, accepted: dict[str, int]) -> int:
    if not isinstance(value, str) or value not in accepted:
        raise InvalidValueError(f"{name} must be one of {', '.join(accepted)}, got {value!r:.80}")
    return accepted[value]


def _rights(rights: object) -> int:
    if (
        not isinstance(rights, str)
        or set(rights) - set(_RIGHTS)
        or len(set(rights)) < len(rights)
        or "r" not in rights
    ):
        raise InvalidValueError(f"rights must be r, rw, rx or rwx, got {rights!r:.80}")
    return sum(_RIGHTS[letter] for letter in rights)


def _count(value: Any, name: str, least: int = 1) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise InvalidTypeError(f"{name} must be an integer, got {value!r:.80}")
    if not least <= value <= 1 << 30:
        raise InvalidValueError(f"{name} must be in [{least}, 2**30], got {value}")
    return int(value)


def _column(values: Any, name: str, count: int) -> npt.NDArray[np.uint64]:
    """One number for each access, or one for all."""
    if isinstance(values, int) and 0 <= values < 1 << 64:
        return np.array([values], np.uint64)
    array = np.asarray(values)
    if array.dtype.kind not in "iub" or array.ndim > 1:
        raise InvalidTypeError(f"{name} must be an integer or one for each access")
    if array.ndim == 1 and len(array) not in (1, count):
        raise InvalidTypeError(f"{name} must be {count} integers, or one, got {len(array)}")
    if array.dtype.kind == "i" and array.size and array.min() < 0:
        raise InvalidValueError(f"{name} must not be negative, got {array.min()}")
    return np.ascontiguousarray(np.atleast_1d(array), dtype=np.uint64)
