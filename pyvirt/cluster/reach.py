"""Which VM may run on which host, and why not: what DRS, placement and repair all ask."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pyvirt.cluster.tables import CPU, MEMORY, NONE, PAGE, HostState, RuleKind
from pyvirt.errors import InvalidTypeError, InvalidValueError

if TYPE_CHECKING:
    from pyvirt.cluster.kernels.reach import ReachArrays
    from pyvirt.cluster.model import Cluster

__all__ = ["Reach"]

Ints = npt.NDArray[np.int64]


class Reach:
    """Which hosts each VM of a cluster may be on, in a form that kernels ask.

    Features (EVC), datastores, networks and rules between VMs and hosts are read once; where VMs
    are and what is free is asked anew by each method, so the cluster's `VMs.host` may change.
    A host that is not on takes no VM.

    Parameters
    ----------
    cluster : Cluster
        What is asked about.
    active : array_like of bool, shape (G,), optional
        Which rules count; by default those that are enabled.

    Attributes
    ----------
    arrays : pyvirt.cluster.kernels.reach.ReachArrays
        For kernels; the functions beside it take it as their first argument.
    active : ndarray of bool
        As given.

    Notes
    -----
    A VM that is off takes part in no rule between VMs and reserves nothing where it is. Should
    rules never forbid a host; they are kept apart from must rules, in ``arrays.should``.
    """

    def __init__(self, cluster: Cluster, active: npt.ArrayLike | None = None) -> None:
        from pyvirt.cluster.kernels import reach as kernel

        vms, hosts, rules = cluster.vms, cluster.hosts, cluster.rules
        self.cluster = cluster
        self.active = rules.enabled == 1 if active is None else np.asarray(active)
        if self.active.dtype != np.bool_ or self.active.shape != (len(rules),):
            raise InvalidTypeError(f"active must be {len(rules)} booleans, got {active!r:.80}")
        vm_masks, host_masks = _masks(cluster)
        between = rules.kind <= RuleKind.SEPARATE
        start, of_hosts = kernel.lists_of_vms(
            len(vms), rules.vm_start, rules.vm, self.active & ~between
        )
        if of_hosts.size or vm_masks.any():
            klass, first = kernel.classify(vm_masks, start, of_hosts)
        else:  # all alike, as so often: no need to look at a million VMs one by one
            klass, first = np.zeros(len(vms), np.int64), np.arange(min(len(vms), 1))
        must, should = kernel.class_bits(
            vm_masks, host_masks, first, start, of_hosts, rules.kind, rules.host_start, rules.host
        )
        link_start, link = kernel.lists_of_vms(
            len(vms), rules.vm_start, rules.vm, self.active & between
        )
        need = vms.reservation.copy()
        need[MEMORY] += vms.overhead
        self.arrays: ReachArrays = kernel.ReachArrays(
            up=(hosts.state == HostState.ON).astype(np.uint8),
            klass=klass,
            must=must,
            should=should,
            need=need,
            link_start=link_start,
            link=link,
            rule_start=rules.vm_start,
            rule_vm=rules.vm,
            apart=(rules.kind == RuleKind.SEPARATE).astype(np.uint8),
            on=vms.on,
        )

    def free(self) -> Ints:
        """Give what no VM that is on has reserved, shape (2, H); negative where too much is."""
        return self.cluster.hosts.capacity - self.cluster.sum_on_hosts(self.arrays.need)

    def allowed(self) -> npt.NDArray[np.bool_]:
        """Say for each VM and host whether it may be there, shape (V, H), all others as they are.

        Returns
        -------
        ndarray of bool
            Where a VM that is on is already, its reservation is no reason against the host.
        """
        from pyvirt.cluster.kernels.reach import allowed_matrix

        where = np.where(self.arrays.on == 1, self.cluster.vms.host, NONE)
        return allowed_matrix(self.arrays, where, self.free())

    def refusal(self, vm: int, host: int) -> str:
        """Say why a VM may not be on a host, all others as they are.

        Returns
        -------
        str
            All reasons in words; empty if it may be there.
        """
        cluster = self.cluster
        vms, hosts, rules = cluster.vms, cluster.hosts, cluster.rules
        if not 0 <= vm < len(vms):
            raise InvalidValueError(f"vm must be one of {len(vms)}, got {vm}")
        if not 0 <= host < len(hosts):
            raise InvalidValueError(f"host must be one of {len(hosts)}, got {host}")
        reasons = []
        if not self.arrays.up[host]:
            reasons.append(f"the host is not on but {HostState(hosts.state[host]).name}")
        missing = int(vms.features[vm]) & ~int(hosts.features[host])
        if missing:
            reasons.append(f"the host lacks the CPU features {missing:#x}")
        for key in ("datastores", "networks"):
            ours, theirs = getattr(vms, key)[vm], getattr(hosts, key)[host]
            bits = [
                64 * word + bit
                for word, (mine, there) in enumerate(zip(ours, theirs, strict=False))
                for bit in range(64)
                if int(mine) & ~int(there) & (1 << bit)
            ]
            if bits:
                reasons.append(f"the host does not reach the {key} {bits}")
        for at in np.flatnonzero(rules.vm == vm):
            rule = int(np.searchsorted(rules.vm_start, at, side="right")) - 1
            if self.active[rule]:
                reasons += self._rule(rule, vm, host)
        reasons += self._reservations(vm, host)
        return "; ".join(reasons)

    def _rule(self, rule: int, vm: int, host: int) -> list[str]:
        rules, vms = self.cluster.rules, self.cluster.vms
        kind = RuleKind(rules.kind[rule])
        name = f"rule {rules.name[rule]!r} ({kind.name})"
        listed = host in rules.hosts_of(rule)
        if kind == RuleKind.MUST_RUN and not listed:
            return [f"{name} wants it on other hosts"]
        if kind == RuleKind.MUST_NOT_RUN and listed:
            return [f"{name} forbids this host"]
        mates = [m for m in rules.vms_of(rule) if m != vm and vms.on[m] and vms.host[m] != NONE]
        if kind == RuleKind.SEPARATE:
            return [
                f"{name} keeps it apart from {vms.name[m]!r}" for m in mates if vms.host[m] == host
            ][:1]
        if kind == RuleKind.TOGETHER:
            return [f"{name} keeps it with {vms.name[m]!r}" for m in mates if vms.host[m] != host][
                :1
            ]
        return []

    def _reservations(self, vm: int, host: int) -> list[str]:
        vms = self.cluster.vms
        free = self.free()[:, host]
        need = self.arrays.need[:, vm]
        reasons: list[str] = []
        if vms.on[vm] and vms.host[vm] == host:
            return reasons
        if need[CPU] > free[CPU]:
            reasons.append(f"it reserves {need[CPU] / 1000:g} MHz of {free[CPU] / 1000:g} free")
        if need[MEMORY] > free[MEMORY]:
            mib = PAGE / 2**20
            reasons.append(
                f"it reserves {need[MEMORY] * mib:g} MiB with its overhead, of "
                f"{free[MEMORY] * mib:g} free"
            )
        return reasons


def _masks(cluster: Cluster) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    """Put features, datastores and networks side by side, for VMs and for hosts."""
    vms, hosts = cluster.vms, cluster.hosts
    ours, theirs = [vms.features[:, None]], [hosts.features[:, None]]
    for key in ("datastores", "networks"):
        mine, there = getattr(vms, key), getattr(hosts, key)
        # A word that only one side has says nothing: a VM's would be refused by `validate`.
        words = min(mine.shape[1], there.shape[1])
        if words and mine[:, :words].any():
            ours.append(mine[:, :words])
            theirs.append(there[:, :words])
    if len(ours) == 1:  # nothing to copy
        return ours[0], theirs[0]
    return np.ascontiguousarray(np.hstack(ours)), np.ascontiguousarray(np.hstack(theirs))
