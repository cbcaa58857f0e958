"""Tables whose columns are arrays: what a cluster's hosts, VMs, pools and rules are kept as."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt

from pyvirt.errors import InvalidTypeError, InvalidValueError

__all__ = ["ClusterError", "Column", "Table"]

LARGEST = 2**53 - 1
"""Amounts stay below what a float64 holds exactly, so that sums may be made in either type."""


class ClusterError(InvalidValueError):
    """A cluster's data contradict themselves; the message names the table, the row and its name.

    Attributes
    ----------
    table : str
        ``"hosts"``, ``"vms"``, ``"pools"`` or ``"rules"``.
    row : int
        The number of the row; -1 where no single row is at fault.
    """

    def __init__(self, message: str, table: str = "", row: int = -1) -> None:
        super().__init__(message)
        self.table = table
        self.row = row


@dataclass(frozen=True, slots=True)
class Column:
    """What one column of a table accepts.

    Attributes
    ----------
    dtype : str
        Of the array.
    form : {"row", "resource", "words"}
        Shape (n,), (2, n) with a row for CPU and one for memory, or (n, words) of 64-bit masks.
    default : int or float, optional
        For rows that say nothing; None: must be given.
    lowest, highest : float
        What is accepted.
    """

    dtype: str = "i8"
    form: Literal["row", "resource", "words"] = "row"
    default: float | None = None
    lowest: float = 0
    highest: float = LARGEST


class Table:
    """Columns of equal length, with a name for each row.

    Parameters
    ----------
    name : sequence of str, or int
        A unique name for each row, or the number of rows, which get names as ``"host3"``.
    **columns : array_like
        Integers are taken from floats where these are whole.

    Raises
    ------
    ClusterError
        A value outside what its column accepts, or a name that comes twice.
    InvalidTypeError
        A column that is unknown, or of the wrong shape, or no numbers.
    """

    TABLE: ClassVar[str] = "rows"
    ROW: ClassVar[str] = "row"
    COLUMNS: ClassVar[Mapping[str, Column]] = {}

    name: list[str]

    def __init__(self, name: Sequence[str] | int, **columns: npt.ArrayLike) -> None:
        self.name = self._names(name)
        unknown = sorted(set(columns) - set(self.COLUMNS))
        if unknown:
            known = ", ".join(self.COLUMNS)
            raise InvalidTypeError(f"{self.TABLE} have no {unknown[0]!r:.80}; there are {known}")
        for key, column in self.COLUMNS.items():
            given = columns.get(key)
            setattr(self, key, self._array(key, column, given))
        self.check()

    def __len__(self) -> int:
        return len(self.name)

    def __repr__(self) -> str:
        return f"<{len(self)} {self.TABLE}>"

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        return self.name == other.name and all(
            np.array_equal(getattr(self, key), getattr(other, key)) for key in self.COLUMNS
        )

    __hash__ = None  # type: ignore[assignment]

    def copy(self) -> Self:
        """Give a table with copies of all columns."""
        made = object.__new__(type(self))
        made.name = list(self.name)
        for key in self.COLUMNS:
            setattr(made, key, getattr(self, key).copy())
        return made

    def check(self) -> None:
        """Check each value, such as after columns were changed in place."""
        for key, column in self.COLUMNS.items():
            array = getattr(self, key)
            if not isinstance(array, np.ndarray) or array.dtype != column.dtype:
                raise InvalidTypeError(f"{key} of {self.TABLE} must be an array of {column.dtype}")
            if array.shape != self._shape(column, array):
                raise InvalidTypeError(
                    f"{key} of {self.TABLE} must have shape {self._shape(column, array)}, "
                    f"not {array.shape}"
                )
            if array.dtype.kind != "u" or column.highest < LARGEST:
                self.refuse(
                    ~((array >= column.lowest) & (array <= column.highest)),
                    key,
                    f"must be in [{column.lowest:g}, {column.highest:g}]",
                )

    def where(self, row: int) -> str:
        """Name a row for a message, such as ``vms row 17 ('web')``."""
        return f"{self.TABLE} row {row} ({self.name[row]!r:.80})"

    def refuse(self, bad: npt.NDArray[np.bool_], key: str, rule: str) -> None:
        """Raise for the first row that is bad, if there is one."""
        if not bad.any():
            return
        axis = 0 if self.COLUMNS[key].form == "resource" else -1
        rows = bad if bad.ndim == 1 else bad.any(axis=axis)
        row = int(rows.argmax())
        array = getattr(self, key)
        value = array[..., row] if self.COLUMNS[key].form == "resource" else array[row]
        raise ClusterError(f"{self.where(row)}: {key} {rule}, got {value}", self.TABLE, row)

    def _names(self, name: Sequence[str] | int) -> list[str]:
        if isinstance(name, (int, np.integer)) and not isinstance(name, bool):
            if name < 0:
                raise InvalidValueError(
                    f"the number of {self.TABLE} must not be negative, got {name}"
                )
            return [f"{self.ROW}{i}" for i in range(name)]
        if isinstance(name, str) or not hasattr(name, "__iter__"):
            raise InvalidTypeError(f"names of {self.TABLE} must be strings, not {name!r:.80}")
        names: list[Any] = list(name)  # type: ignore[arg-type]
        seen: dict[str, int] = {}
        for row, one in enumerate(names):
            if not isinstance(one, str):
                raise InvalidTypeError(f"names of {self.TABLE} must be strings, not {one!r:.80}")
            names[row] = str(one)
            if seen.setdefault(one, row) != row:
                raise ClusterError(
                    f"{self.TABLE} rows {seen[one]} and {row} have the same name {one!r:.80}",
                    self.TABLE,
                    row,
                )
        return names

    def _shape(self, column: Column, array: Any) -> tuple[int, ...]:
        n = len(self)
        words = array.shape[1] if getattr(array, "ndim", 0) == 2 else 1
        return {"row": (n,), "resource": (2, n), "words": (n, words)}[column.form]

    def _array(self, key: str, column: Column, given: Any) -> npt.NDArray[Any]:
        if given is None:
            if column.default is None:
                raise InvalidTypeError(f"{key} of {self.TABLE} must be given")
            given = column.default if column.form != "words" else int(column.default)
        try:
            raw = np.asarray(given)
            if raw.dtype.kind == "f" and column.dtype != "f8":
                self._whole(raw, key)
            array = np.array(raw, dtype=column.dtype, order="C")
        except (TypeError, ValueError, OverflowError) as error:
            if isinstance(error, ClusterError):
                raise
            raise InvalidTypeError(
                f"{key} of {self.TABLE} must be numbers of type {column.dtype}, not {given!r:.80}"
            ) from error
        if column.dtype in ("u1", "u8") and raw.dtype.kind in "if" and (raw < 0).any():
            raise ClusterError(
                f"{self.TABLE}: {key} must not be negative, got {raw.min()}", self.TABLE
            )
        if column.dtype == "u1" and raw.size and raw.max() > 255:
            raise ClusterError(f"{self.TABLE}: {key} must be small, got {raw.max()}", self.TABLE)
        if column.form == "words" and array.ndim == 1 and array.shape == (len(self),):
            array = array[:, None].copy()
        if array.ndim == 0 or (column.form == "resource" and array.shape == (2, 1)):
            shape = (len(self), 1) if column.form == "words" else self._shape(column, array)
            array = np.broadcast_to(array, shape).copy()
        if array.shape != self._shape(column, array):
            raise InvalidTypeError(
                f"{key} of {self.TABLE} must have shape {self._shape(column, array)}, "
                f"not {array.shape}"
            )
        return array

    def _whole(self, raw: npt.NDArray[Any], key: str) -> None:
        bad = ~(np.isfinite(raw) & (raw == np.floor(raw)))
        if bad.any():
            at = np.argwhere(bad)[0]
            row = (
                int(at[-1])
                if self.COLUMNS[key].form == "resource"
                else int(at[0] if at.size else 0)
            )
            where = self.where(row) if raw.ndim else self.TABLE
            raise ClusterError(
                f"{where}: {key} must be a whole number, got {raw[bad][0]}", self.TABLE, row
            )
