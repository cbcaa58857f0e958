"""Where one mode of translation becomes cheaper than another: a map over two rates."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pyvirt.errors import InvalidTypeError, InvalidValueError
from pyvirt.mmu.compare import MODES, Comparison, compare
from pyvirt.mmu.mixes import Mix
from pyvirt.mmu.prices import known

__all__ = ["CrossoverMap", "crossover"]

#: From an edit in 10,000 accesses to one in 10, and from no cold accesses to nothing else.
UPDATES = (0.0, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 1e-1)
MISSES = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


@dataclass(frozen=True, slots=True, eq=False)
class CrossoverMap:
    """What each cell of a grid of mixes cost in each mode.

    Attributes
    ----------
    updates : ndarray of float, shape (u,)
        Edits of tables for each access, asked for.
    misses : ndarray of float, shape (m,)
        Share of cold accesses, asked for.
    modes : tuple of str
        As given; ``native`` is run besides, to compare with.
    cycles : ndarray of float, shape (modes, m, u)
        Of one access.
    native : ndarray of float, shape (m, u)
        The same without a hypervisor.
    miss_ratio : ndarray of float, shape (m, u)
        TLB misses for each access of the program, natively.
    update_ratio : ndarray of float, shape (m, u)
        Edits for each access of the program, as drawn.
    """

    updates: npt.NDArray[np.float64]
    misses: npt.NDArray[np.float64]
    modes: tuple[str, ...]
    cycles: npt.NDArray[np.float64]
    native: npt.NDArray[np.float64]
    miss_ratio: npt.NDArray[np.float64]
    update_ratio: npt.NDArray[np.float64]

    @property
    def best(self) -> npt.NDArray[np.intp]:
        """Index of the cheapest mode of each cell; of equal ones the first."""
        return np.argmin(self.cycles, axis=0)

    @property
    def margin(self) -> npt.NDArray[np.float64]:
        """How many times the cycles of the cheapest mode the next one takes, at least 1."""
        least = np.sort(self.cycles, axis=0)
        margin: npt.NDArray[np.float64] = least[1] / least[0]
        return margin

    def ratio(self, mode: str, other: str) -> npt.NDArray[np.float64]:
        """Cycles of one mode over those of another, or of ``native``, in each cell."""
        ratio: npt.NDArray[np.float64] = self._of(mode) / self._of(other)
        return ratio

    def boundary(self, mode: str, other: str) -> npt.NDArray[np.float64]:
        """Give the rate of edits from which `other` is cheaper than `mode`, for each row.

        Returns
        -------
        ndarray of float, shape (m,)
            The first crossing, interpolated between neighbours: in the logarithm of the rate
            where both are above 0, else linearly. 0 where `other` is cheaper from the start,
            infinity where it never is.
        """
        found = np.full(len(self.misses), np.inf)
        for row, difference in enumerate(np.log(self.ratio(mode, other))):
            above = np.flatnonzero(difference > 0)
            if not above.size:
                continue
            i = int(above[0])
            if i == 0:
                found[row] = 0.0
                continue
            left, right = float(self.updates[i - 1]), float(self.updates[i])
            part = -difference[i - 1] / (difference[i] - difference[i - 1])
            if left > 0:
                found[row] = math.exp(math.log(left) + part * math.log(right / left))
            else:
                found[row] = left + part * (right - left)
        return found

    def to_table(self) -> npt.NDArray[Any]:
        """Give one row a cell.

        Returns
        -------
        ndarray
            Structured: ``misses``, ``updates``, ``miss_ratio``, ``update_ratio``, ``native`` and
            each mode (cycles of an access), ``best``, ``margin``.
        """
        dtype = np.dtype(
            [(name, "<f8") for name in ("misses", "updates", "miss_ratio", "update_ratio")]
            + [(name, "<f8") for name in ("native", *self.modes)]
            + [("best", f"U{max(map(len, self.modes))}"), ("margin", "<f8")]
        )
        table = np.zeros(self.native.shape, dtype)
        table["misses"], table["updates"] = self.misses[:, None], self.updates
        for name in ("miss_ratio", "update_ratio", "native", "margin"):
            table[name] = getattr(self, name)
        for mode, cycles in zip(self.modes, self.cycles, strict=True):
            table[mode] = cycles
        table["best"] = np.array(self.modes)[self.best]
        return table.reshape(-1)

    def _of(self, mode: str) -> npt.NDArray[np.float64]:
        known(mode, ("native", *self.modes), "no mode of the map is named")
        if mode == "native":
            return self.native
        cycles: npt.NDArray[np.float64] = self.cycles[self.modes.index(mode)]
        return cycles


def crossover(
    updates: npt.ArrayLike = UPDATES,
    misses: npt.ArrayLike = MISSES,
    *,
    modes: Sequence[str] = ("shadow", "nested"),
    mix: Mix | None = None,
    accesses: int = 20_000,
    rng: int = 0,
    progress: Callable[[int, int], None] | None = None,
    **options: Any,
) -> CrossoverMap:
    """Run a small stream for each pair of rates in each mode, and see which is cheapest.

    Parameters
    ----------
    updates, misses : array_like of float
        Increasing rates from 0 to 1: `Mix.updates` and `Mix.misses`.
    modes : sequence of str
        At least two of `pyvirt.mmu.compare.MODES`, without ``native``.
    mix : Mix, optional
        Everything else about the streams.
    accesses : int, default 20000
        Of the program in each cell.
    rng : int, default 0
        Seed of every cell: those of one row or column differ in the rate alone.
    progress : callable, optional
        Called with the number of cells done and of all.
    **options
        As in `pyvirt.compare`: ``tlb``, ``backing``, ``costs``, ``exit_costs``, ``work``,
        ``rules``, ``agile``.

    Returns
    -------
    CrossoverMap
        Cycles in each cell.

    Raises
    ------
    InvalidValueError, InvalidTypeError
        For arguments that are not as described.

    Examples
    --------
    >>> from pyvirt.mmu.crossover import crossover
    >>> found = crossover([0, 0.1], [0.01, 0.5], accesses=3000)
    >>> [[found.modes[i] for i in row] for row in found.best]
    [['shadow', 'nested'], ['shadow', 'nested']]
    """
    rates = {"updates": _rates(updates, "updates"), "misses": _rates(misses, "misses")}
    if isinstance(modes, str) or len(modes) < 2:
        raise InvalidTypeError(f"modes must be two names or more, got {modes!r:.80}")
    for mode in modes:
        known(mode, MODES.keys() - {"native"}, "modes of a map cannot have")
    mix = Mix() if mix is None else mix
    if not isinstance(mix, Mix):
        raise InvalidTypeError(f"mix must be a Mix, got {mix!r:.80}")
    shape = (len(rates["misses"]), len(rates["updates"]))
    cycles = np.zeros((len(modes), *shape))
    native, miss_ratio, update_ratio = (np.zeros(shape) for _ in range(3))
    for cell in np.ndindex(shape):
        chosen = dataclasses.replace(
            mix, misses=float(rates["misses"][cell[0]]), updates=float(rates["updates"][cell[1]])
        )
        found = _cell(chosen, ("native", *modes), accesses, rng, options)
        cycles[(slice(None), *cell)] = [found[mode].cycles.total / accesses for mode in modes]
        native[cell] = found["native"].cycles.total / accesses
        miss_ratio[cell] = found["native"].tlb_misses / accesses
        # an edit adds five events: the program's own are the rest
        update_ratio[cell] = (found.events - accesses) / 5 / accesses
        if progress is not None:
            progress(cell[0] * shape[1] + cell[1] + 1, shape[0] * shape[1])
    return CrossoverMap(
        rates["updates"], rates["misses"], tuple(modes), cycles, native, miss_ratio, update_ratio
    )


def _cell(
    mix: Mix, modes: tuple[str, ...], accesses: int, rng: int, options: dict[str, Any]
) -> Comparison:
    guest = mix.guest()
    return compare(
        guest.events(accesses, rng=rng),
        guest.memory,
        cr3=guest.cr3,
        modes=modes,
        before=guest.before(),
        **options,
    )


def _rates(values: npt.ArrayLike, name: str) -> npt.NDArray[np.float64]:
    try:
        rates = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidTypeError(f"{name} must be numbers, got {values!r:.80}") from error
    if rates.ndim != 1 or not rates.size:
        raise InvalidTypeError(f"{name} must be a row of numbers, got shape {rates.shape}")
    if not np.all((rates >= 0) & (rates <= 1)) or np.any(np.diff(rates) <= 0):
        raise InvalidValueError(f"{name} must increase, from 0 to 1, got {rates.tolist()}")
    return rates
