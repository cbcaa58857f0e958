"""Joining neighbouring leaves into runs."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["merge_runs"]


def merge_runs(leaves: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Join leaves that continue each other in every address space, with equal attributes.

    Parameters
    ----------
    leaves : ndarray
        Ascending in ``va``, with at least ``va``, ``pa``, ``size``, ``page_shift``, ``flags``.

    Returns
    -------
    ndarray
        Same dtype; ``size`` is the length of the run, ``entry`` that of its first leaf.
    """
    if len(leaves) == 0:
        return leaves
    same = leaves["va"][1:] == leaves["va"][:-1] + leaves["size"][:-1]
    names = leaves.dtype.names or ()
    mapped = leaves["code"] == 0 if "code" in names else np.ones(len(leaves), bool)
    for name in ("pa", "gpa"):
        if name in names:
            follows = leaves[name][1:] == leaves[name][:-1] + leaves["size"][:-1]
            same &= follows | ~mapped[1:] if name == "pa" else follows
    for name in ("page_shift", "flags", "nested_shift", "code"):
        if name in names:
            same &= leaves[name][1:] == leaves[name][:-1]
    first = np.flatnonzero(np.concatenate(([True], ~same)))
    runs = leaves[first].copy()
    runs["size"] = np.add.reduceat(leaves["size"], first)
    return runs
