"""The exceptions of pyvirt and the fault codes that translations return.

Every exception derives from `PyvirtError` and from the built-in exception that a
caller would expect, so ``except ValueError`` keeps working.
"""

from __future__ import annotations

import errno
import os
from enum import IntEnum
from typing import Self

__all__ = [
    "AdmissionError",
    "EstimateWarning",
    "Fault",
    "FrameExhaustedError",
    "ImageFormatError",
    "InvalidTypeError",
    "InvalidValueError",
    "LimitError",
    "MappingError",
    "MissingDependencyError",
    "MonitorModeError",
    "OutputError",
    "OutsideMemoryError",
    "PageFaultError",
    "PolicyError",
    "PowerStateError",
    "PyvirtError",
    "TraceFormatError",
    "UnsupportedHostError",
    "describe_fault",
]


class PyvirtError(Exception):
    """Base of every exception that pyvirt raises on purpose."""


class InvalidValueError(PyvirtError, ValueError):
    """An argument has the right type and a value that is not accepted."""


class InvalidTypeError(PyvirtError, TypeError):
    """An argument has the wrong type, dtype, shape or memory layout."""


class ImageFormatError(PyvirtError, ValueError):
    """A file is not what its header says, or is truncated, or lies about sizes."""


class TraceFormatError(PyvirtError, ValueError):
    """A trace that is not in the format it claims, or ends within a record."""


class OutsideMemoryError(PyvirtError, IndexError):
    """A physical address that no RAM region of the memory contains."""


class MappingError(PyvirtError, ValueError):
    """A table builder was asked for something that the present tables contradict."""


class FrameExhaustedError(PyvirtError, MemoryError):
    """The frame range given to a table builder has no free frame left."""


class LimitError(PyvirtError, RuntimeError):
    """An enumeration met more tables or leaves than its limit allows."""


class AdmissionError(PyvirtError, ValueError):
    """A reservation that is not to be had.

    Attributes
    ----------
    pool : str
        The path of the pool where it is missing.
    needed, available, missing : float
        What is asked of that pool, what it can give, and the difference.
    client : str
        The path of what asks; empty if that is not known.
    """

    def __init__(self, pool: str, needed: float, available: float, client: str = "") -> None:
        super().__init__(pool, needed, available, client)
        self.pool = pool
        self.needed = needed
        self.available = available
        self.missing = needed - available
        self.client = client

    def __str__(self) -> str:
        asks = f", for {self.client!r}" if self.client else ""
        return (
            f"{self.pool!r} needs {self.needed:.12g} and has {self.available:.12g}: "
            f"{self.missing:.12g} is missing{asks}"
        )


class PolicyError(PyvirtError, RuntimeError):
    """A plug-in policy did what no policy may; its scheduler stands still, and can be read.

    Attributes
    ----------
    policy, hook : str
        Which policy, and the hook that ran; empty outside of hooks.
    rule : str
        What was violated.
    value : int
        What was returned or named.
    cpu, world : int or None
        For which CPU and world, where there is one.
    when_ns : int
        The time.
    """

    def __init__(
        self,
        policy: str,
        hook: str,
        rule: str,
        value: int = 0,
        cpu: int | None = None,
        world: int | None = None,
        when_ns: int = 0,
    ) -> None:
        super().__init__(policy, hook, rule, value, cpu, world, when_ns)
        self.policy = policy
        self.hook = hook
        self.rule = rule
        self.value = value
        self.cpu = cpu
        self.world = world
        self.when_ns = when_ns

    def __str__(self) -> str:
        where = f" in {self.hook}" if self.hook else ""
        which = "" if self.cpu is None else f" for CPU {self.cpu}"
        return (
            f"policy {self.policy}{where}{which} at {self.when_ns:,} ns: "
            f"{self.rule}, got {self.value}"
        )


class MonitorModeError(PyvirtError, RuntimeError):
    """No monitor mode is left for a virtual machine on a host.

    Attributes
    ----------
    vm : str
        The virtual machine.
    allowed, requested : tuple of str
        What processor, BIOS, hypervisor and guest allow, and what the user asked for.
    reason : str
        What to change.
    """

    def __init__(
        self, vm: str, allowed: tuple[str, ...], requested: tuple[str, ...], reason: str
    ) -> None:
        super().__init__(vm, allowed, requested, reason)
        self.vm = vm
        self.allowed = allowed
        self.requested = requested
        self.reason = reason

    def __str__(self) -> str:
        return (
            f"no monitor mode is left for VM {self.vm!r:.80} (allowed: "
            f"{' '.join(self.allowed) or 'none'}; requested: {' '.join(self.requested) or 'none'}):"
            f" {self.reason}"
        )


class PowerStateError(PyvirtError, RuntimeError):
    """A virtual machine was asked for what its power state does not permit."""


class MissingDependencyError(PyvirtError, ImportError):
    """An optional library is needed; the message names the extra to install."""


class EstimateWarning(UserWarning):
    """An estimate that its model cannot carry, such as rates of memory events times costs."""


class UnsupportedHostError(PyvirtError, NotImplementedError):
    """The machine that pyvirt runs on cannot do what was asked; the message says what it takes."""


class OutputError(PyvirtError, OSError):
    """A file cannot be written: no space is left, or it may not be. None is left half-written.

    Attributes
    ----------
    errno : int or None
        The number of the system's error.
    strerror : str
        Why.
    filename : str
        Which file, or directory.
    """

    @classmethod
    def of(cls, path: str | os.PathLike[str], error: OSError) -> Self:
        """Give the exception that says which file was not written, and why."""
        why = error.strerror or str(error) or type(error).__name__
        if error.errno == errno.ENOSPC:
            why = "no space is left on the device"
        return cls(error.errno, why, os.fspath(path))

    def __str__(self) -> str:
        return f"{self.filename} cannot be written: {self.strerror}"


class Fault(IntEnum):
    """What stopped a translation: bits 3:0 of a result code (0 means success)."""

    NONE = 0
    NOT_PRESENT = 1
    """An entry on the way is not present."""
    RESERVED = 2
    """A present entry has a reserved bit set."""
    MISCONFIGURED = 3
    """An EPT entry with a combination of bits that EPT forbids (SDM vol. 3, 30.3.3.1)."""
    NO_READ = 4
    """An EPT entry on the way forbids reading."""
    NO_WRITE = 5
    """An entry on the way forbids writing."""
    NO_EXEC = 6
    """An entry on the way forbids fetching."""
    NOT_USER = 7
    """A user access to a supervisor page."""
    SMEP = 8
    """A supervisor fetch from a user page under CR4.SMEP."""
    SMAP = 9
    """A supervisor data access to a user page under CR4.SMAP with EFLAGS.AC clear."""
    PROTECTION_KEY = 10
    """PKRU or IA32_PKRS denies the access."""
    NON_CANONICAL = 11
    """The address is wider than the tables can map, or not canonical."""
    OUTSIDE_TABLE = 12
    """A table lies outside RAM."""
    OUTSIDE_DATA = 13
    """The final address lies outside RAM (reported only with ``require_ram``)."""
    NO_MEMORY = 14
    """The host could not hold one more frame for an A or D update."""
    SKIPPED = 15
    """The batch stopped at an earlier fault (``on_fault="stop"``)."""


_DIMENSION = ("", "nested ", "second nested ", "third nested ")
_TEXT = {
    Fault.NOT_PRESENT: "not present",
    Fault.RESERVED: "reserved bit set",
    Fault.MISCONFIGURED: "misconfigured entry",
    Fault.NO_READ: "read denied",
    Fault.NO_WRITE: "write denied",
    Fault.NO_EXEC: "fetch denied",
    Fault.NOT_USER: "user access to a supervisor page",
    Fault.SMEP: "supervisor fetch from a user page (SMEP)",
    Fault.SMAP: "supervisor access to a user page (SMAP)",
    Fault.PROTECTION_KEY: "denied by a protection key",
    Fault.NON_CANONICAL: "non-canonical address",
    Fault.OUTSIDE_TABLE: "table outside memory",
    Fault.OUTSIDE_DATA: "final address outside memory",
    Fault.NO_MEMORY: "no host memory for an A or D update",
    Fault.SKIPPED: "not translated: the batch stopped before",
}


def describe_fault(code: int) -> str:
    """Say in words what a 16-bit result code means.

    Parameters
    ----------
    code : int
        Bits 3:0 `Fault`; 6:4 the level of the entry that failed (1 = 4 KiB tables; 0 where
        no level applies); 8:7 the dimension (0 = the address space's own tables,
        1 = the nested tables, 2 = the tables that those run on); 12:10 the level of the
        table of dimension 0 that was being read when an outer dimension failed (0 = the
        final address); 15:13 likewise for dimension 1.

    Returns
    -------
    str
        For example ``"nested: not present at level 2, for the guest's level-1 table"``.
    """
    code = int(code)
    fault = Fault(code & 15)
    if fault is Fault.NONE:
        return "ok"
    level, dimension = code >> 4 & 7, code >> 7 & 3
    text = _TEXT[fault]
    if level:
        text += f" at level {level}"
    if dimension:
        text = f"{_DIMENSION[dimension].strip()}: {text}"
        inner, middle = code >> 10 & 7, code >> 13 & 7
        if dimension > 1:
            what = f"nested level-{middle} table" if middle else "nested final address"
            text += f", for the {what}"
        text += f", for the guest's level-{inner} table" if inner else ", for the final address"
    return text


class PageFaultError(PyvirtError, LookupError):
    """A translation failed where the caller asked for an exception.

    Attributes
    ----------
    va : int
        The address that could not be translated.
    code : int
        Its result code, see `describe_fault`.
    """

    def __init__(self, va: int, code: int) -> None:
        super().__init__(va, code)
        self.va = va
        self.code = code

    @property
    def fault(self) -> Fault:
        """What went wrong, without level and dimension."""
        return Fault(self.code & 15)

    def __str__(self) -> str:
        return f"address {self.va:#x}: {describe_fault(self.code)}"
