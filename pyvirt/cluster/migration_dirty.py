"""How fast a running guest writes to pages that were already sent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from pyvirt.cluster.checks import number, whole
from pyvirt.errors import InvalidTypeError, InvalidValueError

__all__ = ["ConstantRate", "DirtyLog", "DirtyModel", "WorkingSet"]


@dataclass(frozen=True, slots=True)
class ConstantRate:
    """Pages that were clean become dirty at one rate, until all memory is dirty.

    Attributes
    ----------
    pages_s : float
        Distinct pages a second of the guest's time.
    """

    pages_s: float

    def __post_init__(self) -> None:
        number(self.pages_s, "pages_s")


@dataclass(frozen=True, slots=True)
class WorkingSet:
    """A writable working set that is written fast, the rest of the memory slowly.

    Clark et al. (NSDI 2005) call it so: pages that are written so often that to send them before
    the guest stops is in vain.

    Attributes
    ----------
    pages : int
        Its size.
    pages_s : float
        Writes a second to pages of it.
    cold_pages_s : float
        Distinct pages a second of the rest.
    draw : {"in turn", "at random"}
        Whether the writes go through the set page by page, so that min(pages, rate * t) are dirty
        after t, or hit any of its pages with equal chance, which leaves pages * (1 - exp(-rate *
        t / pages)) on average.
    """

    pages: int
    pages_s: float
    cold_pages_s: float = 0.0
    draw: Literal["in turn", "at random"] = "in turn"

    def __post_init__(self) -> None:
        whole(self.pages, "pages")
        number(self.pages_s, "pages_s")
        number(self.cold_pages_s, "cold_pages_s")
        if self.draw not in ("in turn", "at random"):
            raise InvalidValueError(f"draw must be 'in turn' or 'at random', got {self.draw!r:.80}")


class DirtyLog:
    """What a guest wrote, page by page, as a trace or a page-modification log has it.

    Parameters
    ----------
    times_ns : array_like of int
        When, in ascending order; the migration begins at 0.
    frames : array_like of int
        Guest frame numbers, one for each time.
    period_ns : int, optional
        Length of the log, after which it begins anew; above the last time. None: the guest writes
        nothing after its end.

    Attributes
    ----------
    times_ns, frames : ndarray of int64
        As given.
    period_ns : int
        0: it does not begin anew.

    Raises
    ------
    InvalidValueError, InvalidTypeError
        Times that do not ascend, negative frames, arrays of different length.
    """

    def __init__(
        self, times_ns: npt.ArrayLike, frames: npt.ArrayLike, *, period_ns: int | None = None
    ) -> None:
        self.times_ns = _integers(times_ns, "times_ns")
        self.frames = _integers(frames, "frames")
        if self.times_ns.size != self.frames.size:
            raise InvalidTypeError(
                f"times_ns and frames must be equally long, not {self.times_ns.size} and "
                f"{self.frames.size}"
            )
        if self.times_ns.size and (self.times_ns[0] < 0 or (np.diff(self.times_ns) < 0).any()):
            raise InvalidValueError("times_ns must ascend from 0 or later")
        if (self.frames < 0).any():
            raise InvalidValueError(f"frames must not be negative, got {self.frames.min()}")
        last = int(self.times_ns[-1]) if self.times_ns.size else 0
        self.period_ns = 0 if period_ns is None else whole(period_ns, "period_ns", last + 1)

    @classmethod
    def from_fetches(
        cls,
        fetches: Sequence[npt.ArrayLike],
        interval_ns: int,
        *,
        repeat: bool = False,
        frame_bytes: int = 1,
    ) -> DirtyLog:
        """Take what `Hypervisor.dirty` gave at equal intervals.

        Parameters
        ----------
        fetches : sequence of array_like of int
            The frames (or addresses) of each fetch, the first of which was made `interval_ns`
            after the log began. When within its interval a page was written is not known, so
            its writes are spread over it evenly, in the order given.
        interval_ns : int
            Time between fetches.
        repeat : bool, default False
            Whether the guest goes on like that from the beginning.
        frame_bytes : int, default 1
            4096 where fetches hold addresses and not frame numbers.

        Returns
        -------
        DirtyLog
        """
        interval = whole(interval_ns, "interval_ns", 1)
        divisor = whole(frame_bytes, "frame_bytes", 1)
        parts = [_integers(one, f"fetches[{i}]") // divisor for i, one in enumerate(fetches)]
        times = [
            i * interval + np.arange(part.size, dtype=np.int64) * interval // max(part.size, 1)
            for i, part in enumerate(parts)
        ]
        empty = np.empty(0, np.int64)
        return cls(
            np.concatenate([empty, *times]),
            np.concatenate([empty, *parts]),
            period_ns=max(len(parts), 1) * interval if repeat else None,
        )

    def __repr__(self) -> str:
        pages = np.unique(self.frames).size
        return f"<DirtyLog of {self.frames.size} writes to {pages} pages>"


DirtyModel = ConstantRate | WorkingSet | DirtyLog


def _integers(value: Any, name: str) -> npt.NDArray[np.int64]:
    raw = np.asarray(value)
    if raw.ndim != 1 or (raw.size and raw.dtype.kind not in "iu"):
        raise InvalidTypeError(f"{name} must be one row of integers, got {value!r:.80}")
    return np.ascontiguousarray(raw, dtype=np.int64)
