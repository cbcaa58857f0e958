"""Home nodes of worlds over time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Homes"]


@dataclass(frozen=True, slots=True)
class Homes:
    """Where worlds were at home at the end of each of several intervals.

    Attributes
    ----------
    node : ndarray of int64, shape (intervals, worlds)
        The home node of each world; -1: it has none.
    moves : ndarray of int64, shape (intervals, worlds)
        How often it got another one within the interval.
    remote : ndarray of float64, shape (intervals, worlds)
        The share of its memory that is on other nodes.
    """

    node: npt.NDArray[np.int64]
    moves: npt.NDArray[np.int64]
    remote: npt.NDArray[np.float64]

    def of_vm(
        self, worlds: Sequence[int]
    ) -> tuple[list[str], npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """Give esxtop's NHN, NMIG and N%L of a virtual machine for each interval.

        Parameters
        ----------
        worlds : sequence of int
            Columns of the virtual machine's worlds.

        Returns
        -------
        (list of str, ndarray of int64, ndarray of float64)
            Its home nodes, such as ``0,1``; migrations of it, or of its parts, each once; and
            the percentage of its memory that is at home. Without a home: an empty text, 0 and
            NaN.
        """
        columns = list(worlds)
        names: list[str] = []
        moved = np.zeros(len(self.node), np.int64)
        local = np.full(len(self.node), np.nan)
        for i, nodes in enumerate(self.node[:, columns]):
            # parts of a VM have different homes, and equal parts of its memory
            homes, first = np.unique(nodes, return_index=True)
            names.append(",".join(str(home) for home in homes.tolist() if home >= 0))
            if names[-1]:
                parts = [columns[j] for j, home in zip(first, homes, strict=True) if home >= 0]
                moved[i] = self.moves[i, parts].sum()
                local[i] = 100 * (1 - self.remote[i, parts].mean())
        return names, moved, local
