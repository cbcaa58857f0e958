"""What each fault of the reference model does to a day's figures."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy.typing as npt

from pyvirt.cluster.beloglazov_replay import ReplayResult, beloglazov
from pyvirt.cluster.beloglazov_setup import Corrections

__all__ = ["replay_faults"]


def replay_faults(
    util: npt.ArrayLike, policy: str = "thr", selection: str = "mmt", **options: Any
) -> dict[str, ReplayResult]:
    """Replay a day with no fault repaired, with each one by itself, and with all.

    Parameters
    ----------
    util, policy, selection, **options
        As of `beloglazov`, but for `fidelity` and `corrections`. With ``"rs"``, give a seed and
        not a generator: then all replays draw the same numbers.

    Returns
    -------
    dict of str to ReplayResult
        ``"none"``, the names of `Corrections` in order, ``"every"``.

    Examples
    --------
    >>> import numpy as np
    >>> from pyvirt.cluster import ReplaySetup, replay_faults
    >>> day = np.random.default_rng(1).integers(0, 60, (12, 50))
    >>> day[:4, 20:30] = 0
    >>> found = replay_faults(day, "thr", setup=ReplaySetup.planetlab(hosts=12))
    >>> found["none"].vms_left, found["idle_vms"].vms_left
    (8, 12)
    """
    chosen = {"none": Corrections()}
    chosen |= {field.name: Corrections(**{field.name: True}) for field in fields(Corrections)}
    chosen["every"] = Corrections.every()
    return {
        name: beloglazov(
            util, policy, selection, fidelity="corrected", corrections=corrections, **options
        )
        for name, corrections in chosen.items()
    }
