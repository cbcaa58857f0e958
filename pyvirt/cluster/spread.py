"""A quick what-if of balancing: VMs move from the fullest hosts to the emptiest ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pyvirt.cluster.groups import group_of, joint_classes
from pyvirt.cluster.placement import make_fleet
from pyvirt.cluster.reach import Reach
from pyvirt.cluster.tables import MEMORY, NONE, Automation

if TYPE_CHECKING:
    from pyvirt.cluster.model import Cluster

__all__ = ["spread"]


def spread(cluster: Cluster, demand: npt.NDArray[np.int64], *, most: int = 1000) -> int:
    """Even out how full hosts are, in place, as far as single moves can.

    Parameters
    ----------
    cluster : Cluster
        Its `VMs.host` is changed.
    demand : ndarray of int64, shape (2, V)
        What counts as load; overhead is added.
    most : int, default 1000
        Moves at most.

    Returns
    -------
    int
        Moves made. VMs that rules keep together stay where they are.
    """
    from pyvirt.cluster.kernels.spread import spread_all

    vms = cluster.vms
    reach = Reach(cluster)
    group = group_of(reach)
    arrays = joint_classes(reach.arrays, group)
    where = np.where(vms.on == 1, vms.host, NONE)
    wanted = demand.copy()
    wanted[MEMORY] += vms.overhead
    fleet = make_fleet(cluster, arrays, where, wanted)
    mobile = ((group < 0) & (vms.automation != Automation.DISABLED)).astype(np.uint8)
    made = int(spread_all(arrays, fleet, where, wanted, mobile, most))
    vms.host[:] = np.where(vms.on == 1, where, vms.host)
    return made
