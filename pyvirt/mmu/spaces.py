"""Address spaces: page tables in a memory, native and nested, as objects to ask."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any, Literal, SupportsIndex, TypeAlias, Unpack, overload

import numpy as np
import numpy.typing as npt

from pyvirt._core.arrays import addresses
from pyvirt._core.leaves import enumerate_leaves
from pyvirt._core.physmem import PhysMem
from pyvirt._core.walker import Translation, Walker
from pyvirt.errors import InvalidTypeError, InvalidValueError, PageFaultError
from pyvirt.mmu.results import Translations
from pyvirt.mmu.runs import merge_runs

if TYPE_CHECKING:
    from pyvirt._core.walker import Options

__all__ = ["AddressSpace", "NestedAddressSpace"]

Access: TypeAlias = Literal["r", "w", "x"]
OnFault: TypeAlias = Literal["mark", "stop", "raise"]


class _Space(Walker):
    """What native and nested spaces share: batches and enumeration over a `Walker`."""

    @overload
    def translate(
        self,
        vas: int,
        access: Access = ...,
        user: bool = ...,
        *,
        on_fault: OnFault = ...,
        require_ram: bool = ...,
    ) -> Translation: ...
    @overload
    def translate(
        self,
        vas: npt.ArrayLike,
        access: Access = ...,
        user: bool = ...,
        *,
        out: Translations | None = ...,
        on_fault: OnFault = ...,
        detail: bool = ...,
        require_ram: bool = ...,
    ) -> Translations: ...
    def translate(
        self,
        vas: Any,
        access: Access = "r",
        user: bool = False,
        *,
        out: Translations | None = None,
        on_fault: OnFault = "mark",
        detail: bool = False,
        require_ram: bool = False,
    ) -> Translation | Translations:
        """Translate one address or many.

        Parameters
        ----------
        vas : int or array of int, shape (n,)
            Addresses; a batch runs compiled, without the GIL.
        access : {"r", "w", "x"}
            Read, write or fetch.
        user : bool, default False
            Whether at CPL 3.
        out : Translations, optional
            Arrays for the results of a batch (`Translations.empty`), so that nothing is
            allocated.
        on_fault : {"mark", "stop", "raise"}
            Faults are codes in the result (mark); a batch ends at the first one and leaves code
            15, `Fault.SKIPPED`, in the rest (stop); or it raises `PageFaultError`.
        detail : bool, default False
            Also return entries, guest-physical addresses and error codes of a batch.
        require_ram : bool, default False
            Whether a final address outside RAM is a fault. To the hardware it is none: devices
            live there.

        Returns
        -------
        Translation or Translations
            The scalar form for an int.

        Raises
        ------
        PageFaultError
            With ``on_fault="raise"``, for the first address that fails.
        InvalidTypeError, InvalidValueError
            For arguments that are not as described; `out` is untouched then.
        """
        if type(vas) is int and out is None:
            one = self.translate_one(vas, access, user, require_ram)
            if on_fault != "mark":
                _check_on_fault(on_fault)
                if on_fault == "raise" and one.code:
                    raise PageFaultError(vas, one.code)
            return one
        _check_on_fault(on_fault)
        if type(vas) is int or (not isinstance(vas, np.ndarray) and isinstance(vas, SupportsIndex)):
            if out is not None:
                raise InvalidTypeError("out is for batches; one address returns a Translation")
            return self.translate(
                operator.index(vas), access, user, on_fault=on_fault, require_ram=require_ram
            )
        vas = addresses(vas, "vas")
        if out is None:
            out = Translations.empty(len(vas), detail=detail)
        elif not isinstance(out, Translations):
            raise InvalidTypeError(f"out must be a Translations, not {type(out).__name__}")
        elif detail and out.detail is None:
            raise InvalidTypeError("out has no detail array; make it with detail=True")
        done = self.translate_into(
            vas,
            access,
            user,
            out.pa,
            out.code,
            out.page_shift,
            out.flags,
            out.detail,
            stop=on_fault != "mark",
            require_ram=require_ram,
        )
        if on_fault == "raise" and done and out.code[done - 1]:
            raise PageFaultError(int(vas[done - 1]), int(out.code[done - 1]))
        return out


def _check_on_fault(on_fault: str) -> None:
    if on_fault not in ("mark", "stop", "raise"):
        raise InvalidValueError(f"on_fault must be mark, stop or raise, got {on_fault!r}")


class AddressSpace(_Space):
    """The address space that a root register selects.

    Parameters
    ----------
    mem : PhysicalMemory
        The memory that holds the tables.
    cr3 : int
        CR3: the physical address of the top table (low 12 bits ignored; 5 with PAE).
    levels : int, optional
        4 (default) or 5 for x86-64; 3 for PAE; 2 for 32-bit.
    format : {"x86-64", "pae", "x86-32"}
        Entry format. ``"ept"`` and ``"npt"`` translate guest-physical addresses on their own.
    pa_width : int, default 52
        Physical-address width: higher address bits in an entry are reserved.
    **options
        ``cr0``, ``cr4``, ``efer``, ``pkru``, ``pkrs``, ``ac``, ``vendor``, ``large_1g``,
        ``set_ad``, ``memo``, ``outer`` and the EPT options; see `Walker`.

    Examples
    --------
    >>> mem = pv.PhysicalMemory(1 << 20)
    >>> tables = pv.PageTables(mem, frames=(0x1000, 0x10000))
    >>> tables.map([0x400000], [0x20000], rights="rx")
    >>> space = pv.AddressSpace(mem, cr3=tables.root)
    >>> hex(space.translate(0x400123).pa)
    '0x20123'
    """

    def __init__(
        self,
        mem: PhysMem,
        cr3: int,
        *,
        levels: int | None = None,
        format: str = "x86-64",
        pa_width: int = 52,
        outer: Walker | None = None,
        **options: Unpack[Options],
    ) -> None:
        if levels is None:
            levels = {"pae": 3, "x86-32": 2}.get(format, 4)
        super().__init__(
            mem, cr3, outer=outer, format=format, levels=levels, pa_width=pa_width, **options
        )

    def leaves(
        self, *, merge: bool = False, limit: int = 1 << 24, table_limit: int = 1 << 22
    ) -> npt.NDArray[Any]:
        """Every mapping of the space.

        Parameters
        ----------
        merge : bool, default False
            Join neighbours that continue each other in virtual and physical addresses with the
            same page size and flags; ``entry`` is then the first one's.
        limit, table_limit : int
            Most leaves, and most tables, that are visited: hostile tables can describe 2**36.

        Returns
        -------
        ndarray
            Ascending in ``va``; fields ``va``, ``pa``, ``size`` in bytes, ``entry``,
            ``page_shift`` and ``flags`` (as in `Translations`).

        Raises
        ------
        LimitError
            If a limit is exceeded.
        """
        found = enumerate_leaves(self, limit, table_limit)
        return merge_runs(found) if merge else found


class NestedAddressSpace(_Space):
    """A guest's address space, translated by its own tables and by its hypervisor's.

    Parameters
    ----------
    mem : PhysicalMemory
        Host-physical memory.
    guest_cr3 : int
        The guest's CR3, a guest-physical address.
    nested_root : int
        EPTP or N_CR3; the low 12 bits are ignored.
    nested_format : {"npt", "ept"}
    guest_levels, nested_levels : int, default 4
    guest_format : {"x86-64", "pae", "x86-32"}
    pa_width : int, default 48
        Physical-address width of guest and host.
    outer : Walker, optional
        One more dimension: an ``ept`` or ``npt`` walker that translates the addresses in the
        nested tables. Use ``outer=other.nested`` for a guest in a guest.
    **options
        ``exec_only``, ``ept_ad`` and ``mbec`` of an EPT; ``large_1g``, ``set_ad`` and ``memo``
        of both dimensions; the guest's ``cr0``, ``cr4``, ``efer``, ``pkru``, ``pkrs``, ``ac``,
        ``vendor``; ``nested_memo``. As in `Walker`.

    Attributes
    ----------
    nested : Walker
        The nested dimension on its own: translates guest-physical addresses.
    """

    def __init__(
        self,
        mem: PhysMem,
        *,
        guest_cr3: int,
        nested_root: int,
        nested_format: str = "npt",
        guest_levels: int | None = None,
        nested_levels: int = 4,
        guest_format: str = "x86-64",
        pa_width: int = 48,
        outer: Walker | None = None,
        **options: Unpack[Options],
    ) -> None:
        if guest_format not in ("x86-64", "pae", "x86-32"):
            raise InvalidValueError(
                f"guest_format must be x86-64, pae or x86-32, got {guest_format!r}"
            )
        if nested_format not in ("npt", "ept"):
            raise InvalidValueError(f"nested_format must be npt or ept, got {nested_format!r}")
        if guest_levels is None:
            guest_levels = {"pae": 3, "x86-32": 2}.get(guest_format, 4)
        shared = {k: v for k, v in options.items() if k in _NESTED_OPTIONS}
        nested = AddressSpace(
            mem,
            nested_root,
            format=nested_format,
            levels=nested_levels,
            pa_width=pa_width,
            outer=outer,
            **shared,  # type: ignore[arg-type]
        )
        super().__init__(
            mem,
            guest_cr3,
            outer=nested,
            format=guest_format,
            levels=guest_levels,
            pa_width=pa_width,
            **options,
        )

    @property
    def nested(self) -> Walker:
        """The nested dimension: translates guest-physical addresses."""
        assert self.outer is not None
        return self.outer

    def leaves(
        self,
        *,
        merge: bool = False,
        faults: bool = False,
        limit: int = 1 << 24,
        table_limit: int = 1 << 22,
    ) -> npt.NDArray[Any]:
        """Every page of the composed mapping, in pieces of the smallest page size involved.

        Parameters
        ----------
        merge : bool, default False
            Join neighbours that continue each other in all three address spaces.
        faults : bool, default False
            Also list what the guest maps and the hypervisor does not: ``code`` says why, ``pa``
            is 0.
        limit, table_limit : int
            As in `AddressSpace.leaves`; `limit` also bounds the pieces.

        Returns
        -------
        ndarray
            Ascending in ``va``; fields as in `AddressSpace.leaves`, and ``gpa``, ``code`` and
            ``nested_shift``.
        """
        found = enumerate_leaves(self, limit, table_limit, faults=faults)
        return merge_runs(found) if merge else found


_NESTED_OPTIONS = {"exec_only", "ept_ad", "mbec", "large_1g", "set_ad", "memo"}
