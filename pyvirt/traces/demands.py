"""Demand of many virtual machines over time: what all readers of such traces give."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from pyvirt.errors import InvalidTypeError, InvalidValueError
from pyvirt.traces import demandfile

__all__ = ["FIVE_MINUTES_NS", "DemandTraces", "fill", "one_of", "whole"]

FIVE_MINUTES_NS = 300_000_000_000
_CPU_UNITS = ("percent", "fraction", "mhz")
_MEMORY_UNITS = ("bytes", "fraction")
_COLUMNS = ("vcpus", "cpu_capacity_mhz", "memory_capacity_bytes")


@dataclass(frozen=True, slots=True, eq=False)
class DemandTraces:
    """CPU demand of V machines in T intervals of equal length, perhaps with memory.

    Parameters
    ----------
    names : sequence of str
        A unique name for each machine.
    cpu : array_like, shape (V, T)
        Demand for CPU; may be NaN where nothing is known. Its type is kept.
    interval_ns : int
        Length of an interval.
    start_ns : int, default 0
        When the first interval begins; nanoseconds since 1970 where the source says that.
    cpu_unit : {"percent", "fraction", "mhz"}
        Of `cpu`. Per cent and fractions are of the machine's own capacity, but in cluster traces
        of a largest host's.
    memory : array_like, optional, shape (V, T)
        Memory in use; may be NaN.
    memory_unit : {"bytes", "fraction"}
        Of `memory`.
    vcpus, cpu_capacity_mhz, memory_capacity_bytes : array_like, optional, shape (V,)
        What a machine has, where the source says that.

    Attributes
    ----------
    names : tuple of str
    cpu, memory, vcpus, cpu_capacity_mhz, memory_capacity_bytes : ndarray or None
        Read-only. Those of `load` may be parts of the mapped file.
    interval_ns, start_ns, cpu_unit, memory_unit
        As given.

    Raises
    ------
    InvalidValueError
        A negative or infinite demand, a name that comes twice; the message names the machine.
    InvalidTypeError
        Not numbers, or of the wrong shape.

    Examples
    --------
    >>> from pyvirt.traces import DemandTraces
    >>> day = DemandTraces(["web", "db"], [[10, 20, 30], [0, 5, 50]], cpu_unit="percent")
    >>> day.khz([1_000_000, 2_000_000]).tolist()
    [[100000, 200000, 300000], [0, 100000, 1000000]]
    """

    names: Sequence[str]
    cpu: npt.NDArray[Any]
    interval_ns: int = FIVE_MINUTES_NS
    start_ns: int = 0
    cpu_unit: Literal["percent", "fraction", "mhz"] = "fraction"
    memory: npt.NDArray[Any] | None = None
    memory_unit: Literal["bytes", "fraction"] = "bytes"
    vcpus: npt.NDArray[Any] | None = None
    cpu_capacity_mhz: npt.NDArray[Any] | None = None
    memory_capacity_bytes: npt.NDArray[Any] | None = None

    def __post_init__(self) -> None:
        names = _names(self.names)
        object.__setattr__(self, "names", names)
        object.__setattr__(self, "interval_ns", whole(self.interval_ns, "interval_ns", 1))
        object.__setattr__(self, "start_ns", whole(self.start_ns, "start_ns", -(1 << 63)))
        one_of(self.cpu_unit, "cpu_unit", _CPU_UNITS)
        one_of(self.memory_unit, "memory_unit", _MEMORY_UNITS)
        cpu = _demand(self.cpu, "cpu", names, None)
        object.__setattr__(self, "cpu", cpu)
        if self.memory is not None:
            object.__setattr__(self, "memory", _demand(self.memory, "memory", names, cpu.shape))
        for key in _COLUMNS:
            value = getattr(self, key)
            if value is not None:
                object.__setattr__(self, key, _demand(value, key, names, (len(names),)))

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        what = f"{len(self)} machines, {self.intervals} intervals of {self.interval_ns / 1e9:g} s"
        return f"<DemandTraces: {what}, CPU in {self.cpu_unit}>"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, DemandTraces):
            return NotImplemented
        return all(_same(getattr(self, key), getattr(other, key)) for key in self.__slots__)

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[Any, ...]:
        return DemandTraces, tuple(getattr(self, key) for key in self.__slots__)

    @property
    def intervals(self) -> int:
        """T, the number of intervals."""
        return int(self.cpu.shape[1])

    @property
    def times_ns(self) -> npt.NDArray[np.int64]:
        """When each interval begins, from 0 on, and last the end: T + 1 times."""
        return np.arange(self.intervals + 1, dtype=np.int64) * self.interval_ns

    def fraction(self) -> npt.NDArray[np.float64]:
        """Give the demand in parts of the capacity, shape (V, T); per cent are divided by 100.

        Raises
        ------
        InvalidValueError
            For MHz without `cpu_capacity_mhz`.
        """
        if self.cpu_unit == "percent":
            return self.cpu.astype(np.float64) / 100
        if self.cpu_unit == "fraction":
            return self.cpu.astype(np.float64)
        if self.cpu_capacity_mhz is None:
            raise InvalidValueError("cpu is in MHz, and these traces have no cpu_capacity_mhz")
        capacity = self.cpu_capacity_mhz[:, None]
        return np.divide(self.cpu, capacity, out=np.zeros(self.cpu.shape), where=capacity > 0)

    def khz(self, capacity_khz: npt.ArrayLike | None = None) -> npt.NDArray[np.int64]:
        """Give the demand in whole kHz, rounded to the nearest, as clusters take it.

        Parameters
        ----------
        capacity_khz : array_like, optional, shape (V,)
            What the whole of a machine, or a fraction of 1, is. Needed unless `cpu` is in MHz or
            `cpu_capacity_mhz` is known.

        Returns
        -------
        ndarray of int64, shape (V, T)

        Raises
        ------
        InvalidValueError
            Without a capacity, or if a demand is NaN: `filled` replaces these.
        """
        self._refuse_nan(self.cpu, "cpu")
        if capacity_khz is None and self.cpu_unit == "mhz":
            return np.rint(self.cpu * 1000.0).astype(np.int64)
        if capacity_khz is None:
            if self.cpu_capacity_mhz is None:
                raise InvalidValueError(f"cpu is in {self.cpu_unit}: give capacity_khz")
            capacity_khz = self.cpu_capacity_mhz * 1000.0
        capacity = np.asarray(capacity_khz, np.float64)
        if capacity.shape not in ((), (len(self),)) or not (np.isfinite(capacity).all()):
            raise InvalidTypeError(f"capacity_khz must be {len(self)} numbers")
        return np.rint(self.fraction() * capacity.reshape(-1, 1)).astype(np.int64)

    def pages(self, whole_bytes: float | None = None) -> npt.NDArray[np.int64]:
        """Give the memory in whole pages of 4 KiB, rounded up.

        Parameters
        ----------
        whole_bytes : float, optional
            What a fraction of 1 is; needed where `memory` is in fractions.

        Returns
        -------
        ndarray of int64, shape (V, T)
        """
        if self.memory is None:
            raise InvalidValueError("these traces have no memory")
        self._refuse_nan(self.memory, "memory")
        if self.memory_unit == "fraction" and whole_bytes is None:
            raise InvalidValueError("memory is in fractions: give whole_bytes")
        factor = 1.0 if self.memory_unit == "bytes" else float(whole_bytes or 0.0)
        return np.ceil(self.memory * (factor / 4096)).astype(np.int64)

    def filled(self, missing: Literal["hold", "zero"] = "hold") -> DemandTraces:
        """Replace NaN.

        Parameters
        ----------
        missing : {"hold", "zero"}
            ``"hold"``: by the machine's last known value, and 0 before its first; ``"zero"``: by 0.

        Returns
        -------
        DemandTraces
            These themselves if nothing is NaN.
        """
        one_of(missing, "missing", ("hold", "zero"))
        parts: dict[str, Any] = {}
        for key in ("cpu", "memory"):
            array = getattr(self, key)
            if array is not None and array.dtype.kind == "f" and np.isnan(array).any():
                parts[key] = fill(array, missing)
        return replace(self, **parts) if parts else self

    def select(self, machines: Any = slice(None), intervals: slice = slice(None)) -> DemandTraces:
        """Give some machines, and a range of intervals; arrays are views where slices allow.

        Parameters
        ----------
        machines : slice, array of bool or int
            In the order of the result.
        intervals : slice
            With step 1.

        Returns
        -------
        DemandTraces
        """
        first, last, step = intervals.indices(self.intervals)
        if step != 1:
            raise InvalidValueError(f"intervals must have step 1, got {step}")
        which = np.arange(len(self))[machines]
        if not isinstance(machines, slice):
            machines = which
        parts: dict[str, Any] = {
            key: None if getattr(self, key) is None else getattr(self, key)[machines]
            for key in _COLUMNS
        }
        for key in ("cpu", "memory"):
            array = getattr(self, key)
            parts[key] = None if array is None else array[machines][:, first:last]
        names = [self.names[i] for i in which]
        start = self.start_ns + first * self.interval_ns
        return replace(self, names=names, start_ns=start, **parts)

    def save(self, path: str | os.PathLike[str], *, compress: bool = True) -> None:
        """Write an archive of NumPy: ``util`` and ``name`` as of PlanetLab's days, and the rest.

        Parameters
        ----------
        path : path
            The file appears when it is complete. Equal traces give equal bytes.
        compress : bool, default True
            If not, `load` maps the arrays instead of reading them.
        """
        arrays = {"util": self.cpu, "name": np.array(self.names, dtype=np.str_)}
        arrays |= {
            key: np.array(getattr(self, key))
            for key in ("interval_ns", "start_ns", "cpu_unit", "memory_unit")
        }
        for key in ("memory", *_COLUMNS):
            if getattr(self, key) is not None:
                arrays[key] = getattr(self, key)
        demandfile.write(Path(path), arrays, compress)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        interval_ns: int = FIVE_MINUTES_NS,
        cpu_unit: Literal["percent", "fraction", "mhz"] = "percent",
    ) -> DemandTraces:
        """Read what `save` wrote, or another archive with ``util`` and ``name``.

        Parameters
        ----------
        path : path
            An ``.npz`` file. Arrays that are not compressed are mapped, not read.
        interval_ns, cpu_unit
            For a file that does not say: one with ``util`` and ``name`` alone, such as a day of
            PlanetLab's traces.

        Returns
        -------
        DemandTraces

        Raises
        ------
        TraceFormatError
            What is not such a file, or holds what `DemandTraces` refuses.
        """
        defaults = {"interval_ns": whole(interval_ns, "interval_ns", 1), "cpu_unit": cpu_unit}
        one_of(cpu_unit, "cpu_unit", _CPU_UNITS)
        return demandfile.load(Path(path), cls, defaults, cls.__slots__)

    def _refuse_nan(self, array: npt.NDArray[Any], what: str) -> None:
        if array.dtype.kind == "f" and np.isnan(array).any():
            row, step = np.argwhere(np.isnan(array))[0]
            raise InvalidValueError(
                f"{what} of {self.names[row]!r:.80} is NaN in interval {step}: see filled()"
            )


def fill(array: npt.NDArray[Any], missing: str) -> npt.NDArray[Any]:
    """Replace NaN along the second axis, by 0 or by the last value that is none."""
    known = ~np.isnan(array)
    if missing == "zero":
        return np.where(known, array, 0)
    last = np.where(known, np.arange(array.shape[1]), -1)
    np.maximum.accumulate(last, axis=1, out=last)
    held = np.take_along_axis(array, np.maximum(last, 0), axis=1)
    return np.where(last >= 0, held, 0)


def _names(names: Any) -> tuple[str, ...]:
    if isinstance(names, str) or not hasattr(names, "__iter__"):
        raise InvalidTypeError(f"names must be strings, got {names!r:.80}")
    seen: dict[str, int] = {}
    for row, name in enumerate(names):
        if not isinstance(name, str) or name.endswith("\0"):
            raise InvalidTypeError(f"names must be strings without NUL, row {row} is {name!r:.80}")
        if seen.setdefault(str(name), row) != row:
            raise InvalidValueError(f"rows {seen[name]} and {row} have the same name {name!r:.80}")
    return tuple(seen)


def _demand(
    given: Any, what: str, names: tuple[str, ...], shape: tuple[int, ...] | None
) -> npt.NDArray[Any]:
    """Make a read-only array of what is not negative; NaN is for the caller to judge."""
    try:
        array = np.asarray(given)
    except ValueError as error:
        raise InvalidTypeError(f"{what} must be rows of equal length: {error}") from None
    if array.dtype.kind not in "iuf":
        raise InvalidTypeError(f"{what} must be numbers, got {array.dtype}")
    want = shape or (len(names), array.shape[1] if array.ndim == 2 else -1)
    if array.shape != want:
        raise InvalidTypeError(
            f"{what} must have shape {want if shape else (len(names), 'T')}, got {array.shape}"
        )
    # With NaN the least and the largest are NaN, too: then each value is looked at.
    if array.size and not (array.min() >= 0 and array.max() < np.inf):
        wrong = (array < 0) | np.isinf(array)
        if wrong.any():
            at = tuple(int(i) for i in np.argwhere(wrong)[0])
            where = f", interval {at[1]}," if len(at) > 1 else ""
            raise InvalidValueError(
                f"{what} must be finite and not negative, row {at[0]} ({names[at[0]]!r:.80})"
                f"{where} has {array[at]}"
            )
    if isinstance(given, np.ndarray) and array.flags.writeable:
        array = array.copy()  # the caller's stays writeable
    array.flags.writeable = False
    return array


def whole(value: object, what: str, least: int) -> int:
    """Check that an argument is an integer, and not too small."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise InvalidTypeError(f"{what} must be an integer, got {value!r:.80}")
    if not least <= value < 1 << 63:
        raise InvalidValueError(f"{what} must be in [{least}, 2**63), got {value}")
    return int(value)


def one_of(value: object, what: str, accepted: tuple[str, ...]) -> None:
    """Check that an argument is one of some words."""
    if not isinstance(value, str) or value not in accepted:
        raise InvalidValueError(f"{what} must be one of {', '.join(accepted)}, got {value!r:.80}")


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        nan = a.dtype.kind == b.dtype.kind == "f"
        return a.dtype == b.dtype and np.array_equal(a, b, equal_nan=nan)
    return type(a) is type(b) and bool(a == b)
