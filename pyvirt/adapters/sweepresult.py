"""What a sweep gives: a result for each point of the grid, as arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pyvirt.adapters.tasks import Failure, Value
from pyvirt.errors import InvalidValueError, PyvirtError

__all__ = ["Sweep", "SweepError"]


class SweepError(PyvirtError, RuntimeError):
    """Some tasks of a sweep gave no result.

    Attributes
    ----------
    failures : tuple of Failure
        Each with its configuration and its exception.
    """

    def __init__(self, message: str, failures: tuple[Failure, ...]) -> None:
        super().__init__(message, failures)
        self.failures = failures

    def __str__(self) -> str:
        return str(self.args[0])


@dataclass(frozen=True, slots=True, eq=False)
class Sweep:
    """The results of a sweep; ``sweep["energy"]`` is an array over the grid.

    Attributes
    ----------
    configs : tuple of dict
        What each task was called with.
    values : tuple of dict, or None
        What each task gave, by name; None where it failed.
    failures : tuple of Failure
        In the order of the tasks.
    axes : dict of str to tuple
        The values of each axis, of a grid that was a mapping; else empty.
    seed : int
        What the generators of the tasks came from; ``seed=`` repeats them.
    resumed : int
        Results that were in the store before.
    """

    configs: tuple[dict[str, Any], ...]
    values: tuple[Value | None, ...]
    failures: tuple[Failure, ...]
    axes: dict[str, tuple[Any, ...]]
    seed: int
    resumed: int = 0

    def __len__(self) -> int:
        return len(self.configs)

    def __repr__(self) -> str:
        names = ", ".join(self.names)
        return f"<Sweep: {len(self)} tasks, {len(self.failures)} failed, results {names}>"

    @property
    def names(self) -> tuple[str, ...]:
        """Of the results."""
        seen = {name: None for value in self.values if value for name in value}
        return tuple(seen)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the grid."""
        return tuple(len(axis) for axis in self.axes.values()) if self.axes else (len(self),)

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        """Give a result over the grid: its shape is that of the grid and then that of the result.

        Raises
        ------
        InvalidValueError
            No task gave such a result, or some gave it in another shape.
        SweepError
            A task failed: `column` tells what to put there instead.
        """
        return self.column(name)

    def column(self, name: str, fill: Any = None) -> npt.NDArray[Any]:
        """Give a result over the grid.

        Parameters
        ----------
        name : str
            One of `names`.
        fill : number or str, optional
            What stands for the results of tasks that failed.

        Returns
        -------
        ndarray
        """
        if name not in self.names:
            raise InvalidValueError(f"no result {name!r:.80}: there are {', '.join(self.names)}")
        if fill is None:
            self.raise_failures()
        found = [None if value is None else value.get(name) for value in self.values]
        shapes = {array.shape for array in found if array is not None}
        if len(shapes) != 1 or any(
            array is None and value is not None
            for array, value in zip(found, self.values, strict=True)
        ):
            raise InvalidValueError(
                f"{name} is not of one shape in all results but {sorted(shapes)}: see values"
            )
        (shape,) = shapes
        rows = [np.full(shape, fill) if array is None else array for array in found]
        return np.stack(rows).reshape(*self.shape, *shape)

    def table(self) -> npt.NDArray[Any]:
        """Give a structured array: a row for each task that gave a result.

        Columns are what tasks were called with, as far as these are numbers, strings or truth
        values, and the results that are single values; where both have a name, the result gets
        ``result_`` before it.

        Returns
        -------
        ndarray
        """
        rows = [(c, v) for c, v in zip(self.configs, self.values, strict=True) if v is not None]
        columns: dict[str, npt.NDArray[Any]] = {}
        for key in dict.fromkeys(key for config, _ in rows for key in config):
            cells = [config.get(key) for config, _ in rows]
            if all(isinstance(cell, (bool, int, float, str, np.generic)) for cell in cells):
                columns[key] = np.array(cells)
        for name in self.names:
            found = [value.get(name) for _, value in rows]
            if all(array is not None and array.ndim == 0 for array in found):
                key = f"result_{name}" if name in columns else name
                columns[key] = np.array([array for array in found if array is not None])
        kind = np.dtype([(key, column.dtype) for key, column in columns.items()])
        made = np.empty(len(rows), kind)
        for key, column in columns.items():
            made[key] = column
        return made

    def raise_failures(self) -> None:
        """Raise `SweepError` if a task failed."""
        if self.failures:
            first, more = self.failures[0], len(self.failures) - 1
            others = f", and {more} more" if more else ""
            raise SweepError(f"{first}{others}", self.failures) from first.error
