"""Count comparisons, remember the first that failed, and pronounce the verdict."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, SupportsInt

import numpy as np
import numpy.typing as npt

from pyvirt.validation.registry import Outcome

__all__ = ["Tally"]


class Tally:
    """The running account of one experiment.

    Attributes
    ----------
    cases, failed : int
        So far.
    figures : dict of str to list of int
        Named pairs (expected, measured) that the two sentences of the outcome show.
    """

    def __init__(self) -> None:
        self.cases = 0
        self.failed = 0
        self.figures: dict[str, list[int]] = {}
        self._first = ""
        self._missing: list[str] = []

    def check(
        self, ok: npt.NDArray[np.bool_] | bool, describe: Callable[[int], str] | str = ""
    ) -> None:
        """Count one case for each element; `describe` says what the i-th one is about."""
        result = np.atleast_1d(np.asarray(ok, dtype=bool))
        self.cases += result.size
        bad = np.flatnonzero(~result)
        self.failed += bad.size
        if bad.size and not self._first:
            self._first = describe if isinstance(describe, str) else describe(int(bad[0]))

    def figure(self, name: str, expected: SupportsInt, measured: SupportsInt) -> None:
        """Add to a pair of figures."""
        pair = self.figures.setdefault(name, [0, 0])
        pair[0] += int(expected)
        pair[1] += int(measured)

    def missing(self, what: str) -> None:
        """Remember a part that could not be run for want of its oracle or image."""
        self._missing.append(what)

    def outcome(
        self,
        id: str,
        *,
        skip: str = "nothing to compare",
        sentences: tuple[str, str] | None = None,
        note: str = "",
    ) -> Outcome:
        """Pronounce the verdict: skip without a case, fail with one that failed.

        Parameters
        ----------
        id : str
            The experiment.
        skip : str
            The reason to give where nothing was compared and nothing was noted as missing.
        sentences : (str, str), optional
            Expected and measured, in place of the named figures.
        note : str, optional
            Something that the reason says in any case.
        """
        absent = "; ".join(self._missing)
        if not self.cases:
            return Outcome(id, "skip", 0, 0, "", "", absent or skip)
        expected, measured = sentences or tuple(
            ", ".join(f"{pair[side]:,} {name}" for name, pair in self.figures.items())
            for side in (0, 1)
        )
        if self.failed:
            measured += f" ({self.failed:,} of {self.cases:,} cases differ)"
        reason = "; ".join(
            part for part in (self._first, absent and f"not run: {absent}", note) if part
        )
        return Outcome(
            id,
            "fail" if self.failed else "pass",
            self.cases,
            self.failed,
            expected,
            measured,
            reason,
        )


def hexadecimal(value: Any) -> str:
    """Write an address the way messages show it."""
    return f"{int(value):#x}"
