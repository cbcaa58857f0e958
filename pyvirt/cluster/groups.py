"""VMs that rules keep together, seen as one: what all of them need, and where all may be."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pyvirt.cluster.tables import RuleKind

if TYPE_CHECKING:
    from pyvirt.cluster.kernels.reach import ReachArrays
    from pyvirt.cluster.reach import Reach

__all__ = ["group_of", "joint_classes"]

Ints = npt.NDArray[np.int64]


def group_of(reach: Reach) -> Ints:
    """Number the groups of VMs that must be together, by rules that share VMs.

    Returns
    -------
    ndarray of int64, shape (V,)
        -1 for a VM that is in no group, or off.
    """
    rules, vms = reach.cluster.rules, reach.cluster.vms
    leader = np.arange(len(vms))

    def find(vm: int) -> int:
        while leader[vm] != vm:
            leader[vm] = leader[leader[vm]]
            vm = int(leader[vm])
        return vm

    chosen = np.flatnonzero(reach.active & (rules.kind == RuleKind.TOGETHER))
    for rule in chosen:
        members = [int(vm) for vm in rules.vms_of(int(rule)) if vms.on[vm]]
        for vm in members[1:]:
            one, other = find(members[0]), find(vm)
            leader[max(one, other)] = min(one, other)
    group = np.full(len(vms), -1, dtype=np.int64)
    numbers: dict[int, int] = {}
    for rule in chosen:
        for vm in rules.vms_of(int(rule)):
            if vms.on[vm]:
                group[vm] = numbers.setdefault(find(int(vm)), len(numbers))
    return group


def joint_classes(arrays: ReachArrays, group: Ints) -> ReachArrays:
    """Give each group a class of its own: hosts where all its members may be."""
    count = int(group.max(initial=-1)) + 1
    if count == 0:
        return arrays
    words = arrays.must.shape[1]
    must = np.full((count, words), 2**64 - 1, dtype=np.uint64)
    should = must.copy()
    for vm in np.flatnonzero(group >= 0):
        must[group[vm]] &= arrays.must[arrays.klass[vm]]
        should[group[vm]] &= arrays.should[arrays.klass[vm]]
    klass = np.where(group >= 0, arrays.must.shape[0] + group, arrays.klass)
    return arrays._replace(
        klass=klass,
        must=np.concatenate([arrays.must, must]),
        should=np.concatenate([arrays.should, should]),
    )
