"""Rules that contradict each other: the older one wins, and the newer one is reported.

That the older rule wins is how vSphere's DRS is described (recalled).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pyvirt.cluster.tables import RuleKind

if TYPE_CHECKING:
    from pyvirt.cluster.model import Cluster

__all__ = ["Conflict", "consistent"]

TOGETHER, SEPARATE = int(RuleKind.TOGETHER), int(RuleKind.SEPARATE)
MUST_RUN, MUST_NOT_RUN = int(RuleKind.MUST_RUN), int(RuleKind.MUST_NOT_RUN)


@dataclass(frozen=True, slots=True)
class Conflict:
    """A rule that older rules contradict.

    Attributes
    ----------
    rule : int
        The row; it does not count.
    name : str
        Of the rule.
    why : str
        What contradicts it.
    """

    rule: int
    name: str
    why: str


def consistent(cluster: Cluster) -> tuple[npt.NDArray[np.bool_], list[Conflict]]:
    """Find the rules that can hold at once, older ones first.

    Only must rules, and rules between VMs, can contradict: VMs together that must be apart, or that
    have no host in common, VMs without any host, and more VMs apart than hosts.

    Parameters
    ----------
    cluster : Cluster
        Which hosts are on, and what is free there, says nothing: these change. VMs that are off
        take part in no rule.

    Returns
    -------
    active : ndarray of bool, shape (G,)
        Rules that are enabled and contradict no older one.
    conflicts : list of Conflict
        The others that are enabled.
    """
    rules = cluster.rules
    active = rules.enabled == 1
    conflicts = []
    seen = _Seen(cluster)
    for rule in np.flatnonzero(active):
        why = seen.add(int(rule))
        if why:
            active[rule] = False
            conflicts.append(Conflict(int(rule), rules.name[rule], why))
    return active, conflicts


class _Seen:
    """What the rules so far say of groups of VMs: hosts as the bits of an integer."""

    def __init__(self, cluster: Cluster) -> None:
        self.rules, self.vms = cluster.rules, cluster.vms
        # Lists are read faster than arrays, an element at a time.
        self.kinds, self.flat = self.rules.kind.tolist(), self.rules.vm.tolist()
        self.start = self.rules.vm_start.tolist()
        self.on = self.vms.on.tolist()
        self.hosts = len(cluster.hosts)
        self.all = (1 << self.hosts) - 1
        self.leader: dict[int, int] = {}
        self.members: dict[int, list[int]] = {}
        self.may: dict[int, int] = {}  # of leaders: where they may be
        self.apart: dict[int, list[int]] = {}  # of VMs: rules that keep them apart from others

    def add(self, rule: int) -> str:
        """Take a rule in, or say why not."""
        kind = self.kinds[rule]
        vms = [vm for vm in self.flat[self.start[rule] : self.start[rule + 1]] if self.on[vm]]
        if kind in (MUST_RUN, MUST_NOT_RUN):
            listed = np.zeros(self.hosts, dtype=np.uint8)
            listed[self.rules.hosts_of(rule)] = 1
            bits = int.from_bytes(np.packbits(listed, bitorder="little").tobytes(), "little")
            return self._confine(vms, bits if kind == MUST_RUN else self.all & ~bits)
        if kind == SEPARATE:
            return self._separate(rule, vms)
        if kind == TOGETHER:
            return self._join(vms)
        return ""

    def _find(self, vm: int) -> int:
        while self.leader.get(vm, vm) != vm:
            vm = self.leader[vm]
        return vm

    def _confine(self, vms: list[int], bits: int) -> str:
        leaders = {self._find(vm): vm for vm in vms}
        for leader, vm in leaders.items():
            if not self.may.get(leader, self.all) & bits:
                return f"no host would be left for {self.vms.name[vm]!r}"
        for leader in leaders:
            self.may[leader] = self.may.get(leader, self.all) & bits
        return ""

    def _separate(self, rule: int, vms: list[int]) -> str:
        if len(vms) > self.hosts:
            return f"it keeps {len(vms)} VMs apart, and there are {self.hosts} hosts"
        leaders: dict[int, int] = {}
        for vm in vms:
            other = leaders.setdefault(self._find(vm), vm)
            if other != vm:
                name, mate = self.vms.name[other], self.vms.name[vm]
                return f"{name!r} and {mate!r} must be together"
        for vm in vms:
            self.apart.setdefault(vm, []).append(rule)
        return ""

    def _join(self, vms: list[int]) -> str:
        if not vms:
            return ""
        leaders = list(dict.fromkeys(self._find(vm) for vm in vms))
        members = [one for leader in leaders for one in self.members.get(leader, [leader])]
        bits = self.all
        for leader in leaders:
            bits &= self.may.get(leader, self.all)
        if not bits:
            return "its VMs have no host in common"
        of_rule: dict[int, int] = {}
        for vm in members:
            for rule in self.apart.get(vm, ()):
                other = of_rule.setdefault(rule, vm)
                if other != vm:
                    return (
                        f"rule {self.rules.name[rule]!r} keeps {self.vms.name[other]!r} and "
                        f"{self.vms.name[vm]!r} apart"
                    )
        for leader in leaders:
            self.leader[leader] = leaders[0]
        self.members[leaders[0]] = members
        self.may[leaders[0]] = bits
        return ""
