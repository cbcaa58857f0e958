"""The scheduler of a host by name, and what a virtual machine is given under it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pyvirt.entitlement import Pool, Shares
from pyvirt.errors import InvalidTypeError, InvalidValueError
from pyvirt.machine.admission import Admission
from pyvirt.machine.claims import MOST_WEIGHT, cpu_claim
from pyvirt.machine.profile import Profile
from pyvirt.sched import POLICIES, Plug, Scheduler, Topology
from pyvirt.sched.esx import pool_rows
from pyvirt.sched.policies import PLUGS
from pyvirt.spec import HostSpec, PoolSpec, VMSpec

__all__ = ["Chosen", "check_pools", "choose_scheduler", "topology_of"]

SECOND = 1_000_000_000
PERIOD_NS = 100_000_000


@dataclass(frozen=True)
class Chosen:
    """A scheduler, and what its hypervisor calls it.

    Attributes
    ----------
    scheduler : Scheduler
        The host's.
    name : str or None
        One of the profile's; None: a policy that the hypervisor has not.
    mhz : float
        Of a core.
    pools : dict of str to int
        Numbers of the pools by path, for a policy that knows of them.
    params : dict of str to int
        What the policy's parameters of virtual machines are by default.
    """

    scheduler: Scheduler
    name: str | None
    mhz: float
    pools: dict[str, int]
    params: dict[str, int]

    def claim(self, spec: VMSpec, profile: Profile, admission: Admission) -> dict[str, Any]:
        """Give the arguments of `Scheduler.add_vm`, and as ``quota`` the limit of each world."""
        path = admission.path(spec.pool, spec.name)
        if self.name is not None:
            found = cpu_claim(profile, spec, self.mhz, self.name)
            made = found.arguments()
            if found.quota is not None:
                made["quota"] = found.quota
        else:
            made = self._plain(spec)
        if self.pools:
            made["pool"] = self.pools[path]
        return made

    def _plain(self, spec: VMSpec) -> dict[str, Any]:
        """Shares as weights, and limits of single vCPUs, which every policy has."""
        shares = spec.cpu
        if isinstance(shares, str):
            shares = int(Shares(shares).number("cpu", spec.vcpus))
        made: dict[str, Any] = {"weight": min(max(shares, 1), MOST_WEIGHT)}
        if spec.cpu_limit is None:
            return made
        part = spec.cpu_limit / self.mhz
        if self.scheduler.policy == "esx":
            made["reservation"] = round(spec.cpu_reservation / self.mhz * SECOND)
            made["limit"] = max(1, round(part * SECOND))
        elif part < spec.vcpus:
            made["quota"] = (max(1, round(part / spec.vcpus * PERIOD_NS)), PERIOD_NS)
        return made


def choose_scheduler(
    spec: HostSpec,
    profile: Profile,
    scheduler: str | Plug | None,
    pools: Pool,
    quantum_ns: int | None,
    seed: int,
) -> Chosen:
    """Make the scheduler of a host.

    Parameters
    ----------
    spec : HostSpec
        The host.
    profile : Profile
        Its hypervisor.
    scheduler : str, Plug or None
        One of the profile's, or a policy of `pyvirt.sched`; None: the host's, else the profile's.
    pools : Pool
        Resource pools in MHz, without clients.
    quantum_ns : int or None
        Slice of a world, where the policy has none of its own.
    seed : int
        Of workloads, and of policies that draw.

    Raises
    ------
    InvalidValueError, InvalidTypeError
        A scheduler that there is not, or pools under a policy that knows none.
    """
    wanted = spec.scheduler if scheduler is None else scheduler
    topology = topology_of(spec)
    shape: dict[str, Any] = {"cpus": spec.cpus} if topology is None else {"topology": topology}
    if quantum_ns is not None:
        shape["quantum_ns"] = quantum_ns
    name: str | None = None
    beside: dict[str, Any] = {}
    policy: Any
    if isinstance(wanted, Plug):
        policy, is_esx = wanted, False
    elif wanted is None or wanted in profile.schedulers:
        found = profile.scheduling(wanted)
        name, is_esx = found.name, found.policy == "esx"
        options: dict[str, Any] = {"pools": pools, "mhz": spec.mhz} if is_esx else {}
        if is_esx and quantum_ns is not None:
            options["quantum_ns"] = quantum_ns
        policy, beside = found.make(**options)
    elif not isinstance(wanted, str):
        raise InvalidTypeError(f"scheduler must be a name or a Plug, got {wanted!r:.80}")
    elif wanted in PLUGS or wanted in POLICIES:
        is_esx = wanted == "esx"
        make: Any = PLUGS.get(wanted)
        policy = make(pools=pools, mhz=spec.mhz) if is_esx else wanted
    else:
        known = dict.fromkeys((*profile.schedulers, *POLICIES, *PLUGS))
        raise InvalidValueError(f"scheduler must be one of {', '.join(known)}, got {wanted!r:.80}")
    if pools.children and not is_esx:
        raise _no_pools(spec, wanted if isinstance(wanted, str) else name or "given")
    made = Scheduler(policy=policy, rng=seed, **shape, **beside)
    numbers = {}
    if pools.children:
        numbers = {path: i for i, (path, _) in enumerate(pool_rows(pools, spec.mhz))}
    plug = PLUGS[policy]() if isinstance(policy, str) and policy in PLUGS else policy
    defaults = {key: value[0] for key, value in getattr(plug, "vm_params", {}).items()}
    return Chosen(made, name, spec.mhz, numbers, defaults)


def check_pools(spec: HostSpec, profile: Profile, pools: Sequence[PoolSpec]) -> None:
    """Refuse resource pools on a host whose described scheduler knows of none.

    Raises
    ------
    InvalidValueError
        As `choose_scheduler`.
    """
    policy = name = spec.scheduler
    if name is None or name in profile.schedulers:
        found = profile.scheduling(name)
        name, policy = found.name, found.policy
    if pools and policy != "esx":
        raise _no_pools(spec, str(name))


def _no_pools(spec: HostSpec, scheduler: str) -> InvalidValueError:
    return InvalidValueError(
        f"pools of host {spec.name!r:.80} must be empty: the scheduler {scheduler} knows of none"
    )


def topology_of(spec: HostSpec) -> Topology | None:
    """Give the shape of a host's CPUs; None: each is a core, and all are alike."""
    if spec.threads_per_core == spec.sockets == spec.numa_nodes == 1:
        return None
    return Topology(
        sockets=spec.sockets,
        nodes_per_socket=max(1, spec.numa_nodes // spec.sockets),
        cores=spec.cores // spec.sockets,
        threads=spec.threads_per_core,
        smt=spec.smt_speed,
    )
