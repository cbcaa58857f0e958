"""Translation without tables: which frame each page lies in, as a function of the user's."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from pyvirt.errors import InvalidTypeError, InvalidValueError

__all__ = ["FrameMapping", "Mapping"]

#: Frame numbers of an array of page numbers.
Mapping: TypeAlias = Callable[[npt.NDArray[np.uint64]], npt.NDArray[Any]]

_SHIFT, _OFFSET = np.uint64(12), np.uint64(0xFFF)
#: Physical addresses have at most 52 bits.
_MOST_FRAME = (1 << 40) - 1
#: Pages that the function is asked about at a time: results of any length need little memory.
_BLOCK = 1 << 16
# Operations of event records: pyvirt.traces.Op, of which this package is independent.
_FIRST_ACCESS, _LAST_ACCESS = 1, 4


class FrameMapping:
    """Puts the addresses that a function gives into results of the engine, which gives the page's.

    The function is pure, so what the TLBs hold and count does not depend on it: they are
    simulated without it, and it is asked about the results alone.
    """

    __slots__ = ("function",)

    def __init__(self, function: Mapping) -> None:
        if not callable(function):
            raise InvalidTypeError(
                "mapping must be None or a function from an array of page numbers to one of frame "
                f"numbers, got {function!r:.80}"
            )
        self.function = function

    def frames(self, pages: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
        """Ask the function about at least one page, and check what it says."""
        # it gets an array of its own, which it may write to
        found = self.function(pages.copy())
        accepted = f"mapping must return an integer array of shape {pages.shape} for these pages"
        if not isinstance(found, np.ndarray):
            raise InvalidTypeError(f"{accepted}, got {found!r:.80}")
        if found.dtype.kind not in "iu" or found.shape != pages.shape:
            raise InvalidTypeError(f"{accepted}, got {found.dtype} of shape {found.shape}")
        wrong = np.flatnonzero((found < 0) | (found > _MOST_FRAME))
        if len(wrong):
            page, frame = int(pages[wrong[0]]), int(found[wrong[0]])
            raise InvalidValueError(
                f"mapping must return frame numbers in [0, {_MOST_FRAME:#x}], "
                f"got {frame:#x} for page {page:#x}"
            )
        return found.astype(np.uint64)

    def addresses(self, vas: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
        """Physical addresses of at least one virtual one."""
        return self.frames(vas >> _SHIFT) << _SHIFT | vas & _OFFSET

    def one(self, va: int) -> int:
        """Physical address of one virtual address."""
        return int(self.addresses(np.array([va], np.uint64))[0])

    def fill(
        self,
        vas: npt.NDArray[np.uint64],
        pas: npt.NDArray[np.uint64],
        codes: npt.NDArray[np.uint16],
    ) -> None:
        """Put the addresses of accesses that did not fault into `pas`."""
        for at in range(0, len(vas), _BLOCK):
            part = slice(at, at + _BLOCK)
            self._put(vas[part], pas[part], codes[part] & np.uint16(15) == 0)

    def fill_events(
        self,
        events: npt.NDArray[Any],
        pas: npt.NDArray[np.uint64],
        codes: npt.NDArray[np.uint16],
    ) -> None:
        """Likewise of the accesses among events."""
        for at in range(0, len(events), _BLOCK):
            part = slice(at, at + _BLOCK)
            op = events["op"][part]
            access = (op >= _FIRST_ACCESS) & (op <= _LAST_ACCESS)
            self._put(events["addr"][part], pas[part], access & (codes[part] & np.uint16(15) == 0))

    def _put(
        self,
        vas: npt.NDArray[np.uint64],
        pas: npt.NDArray[np.uint64],
        wanted: npt.NDArray[np.bool_],
    ) -> None:
        if wanted.all():
            pas[:] = self.addresses(vas)
        elif wanted.any():
            pas[wanted] = self.addresses(vas[wanted])

    def __reduce__(self) -> tuple[Any, ...]:
        try:
            pickle.dumps(self.function)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise InvalidTypeError(
                f"the mapping of this MMU cannot be pickled, got {self.function!r:.80}: {error}. "
                "A function from the top level of a module can, and an object of a class from there"
            ) from error
        return FrameMapping, (self.function,)
