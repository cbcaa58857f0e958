"""What a cluster does by itself: DRS, DPM, HA, and how hosts reclaim memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pyvirt.spec.base import Spec
from pyvirt.spec.fields import count, flag, fraction, names, number, one_of, part, refuse, time

__all__ = ["DPMSpec", "DRSSpec", "HASpec", "MemoryPolicySpec", "PolicySpec"]

SECOND = 10**9


@dataclass(frozen=True, slots=True)
class DRSSpec(Spec):
    """Load balancing: what `pyvirt.cluster.drs` goes by.

    Attributes
    ----------
    level : int
        From 1, only what must be, to 5, every gain.
    automation : {"manual", "partial", "full"}
        Whether recommendations are only given, followed when VMs are powered on, or followed.
    interval_ns : int
        Time between runs (5 min: vSphere Resource Management).
    """

    WHAT: ClassVar[str] = "DRS"

    level: int = count(3, least=1, most=5)
    automation: str = one_of("full", ("manual", "partial", "full"))
    interval_ns: int = time(300 * SECOND, least=1)


@dataclass(frozen=True, slots=True)
class DPMSpec(Spec):
    """Power management: what `pyvirt.cluster.DPMOptions` has.

    Attributes
    ----------
    target, tolerance : float
        A host's demand over its capacity is to be `target` plus or minus `tolerance`
        (VMware KB 310527).
    interval_ns : int
        Time between runs (5 min: with DRS).
    on_window_ns, off_window_ns : int
        By which demand hosts are powered on and off (KB 310527).
    least_on : int
        Hosts that stay on at least.
    """

    WHAT: ClassVar[str] = "DPM"

    target: float = fraction(0.63)
    tolerance: float = fraction(0.18)
    interval_ns: int = time(300 * SECOND, least=1)
    on_window_ns: int = time(300 * SECOND, least=1)
    off_window_ns: int = time(2400 * SECOND, least=1)
    least_on: int = count(1, least=1)

    def check(self, whose: str) -> None:
        """Check that the band is within 0 and 1."""
        if not self.tolerance <= self.target <= 1 - self.tolerance:
            refuse(
                f"tolerance of {whose} must leave target - tolerance and target + tolerance "
                f"within 0 and 1, got {self.tolerance:g} around {self.target:g}",
                "tolerance",
            )


@dataclass(frozen=True, slots=True)
class HASpec(Spec):
    """Restart after failures: what `pyvirt.cluster.HARules` and its admission control have.

    Attributes
    ----------
    admission : {"none", "slots", "percentage", "hosts"}
        How capacity is kept for failures.
    tolerate : int
        Failures of hosts that are to be borne (slots).
    cpu, memory : float
        Parts of the cluster's capacity that are kept (percentage; 0.25: of four hosts one).
    failover_hosts : tuple of str
        Hosts that are kept free (hosts).
    isolation_response : {"leave_on", "shut_down", "power_off"}
        What an isolated host does with its VMs.
    apd_response : {"events", "conservative", "aggressive"}
        To paths that are all down.
    pdl_response : {"events", "restart"}
        To a device that is permanently lost.
    """

    WHAT: ClassVar[str] = "HA"

    admission: str = one_of("slots", ("none", "slots", "percentage", "hosts"))
    tolerate: int = count(1, least=0, most=4096)
    cpu: float = fraction(0.25)
    memory: float = fraction(0.25)
    failover_hosts: tuple[str, ...] = names()
    isolation_response: str = one_of("leave_on", ("leave_on", "shut_down", "power_off"))
    apd_response: str = one_of("conservative", ("events", "conservative", "aggressive"))
    pdl_response: str = one_of("restart", ("events", "restart"))

    def check(self, whose: str) -> None:
        """Check that hosts are named where they are kept free."""
        if (self.admission == "hosts") != bool(self.failover_hosts):
            refuse(
                f'failover_hosts of {whose} must name hosts where admission is "hosts", and only '
                f"there, got {list(self.failover_hosts)!r:.80} with admission {self.admission!r}",
                "failover_hosts",
            )


@dataclass(frozen=True, slots=True)
class MemoryPolicySpec(Spec):
    """How hosts reclaim memory; what is None is as the hypervisor's profile has it.

    Attributes
    ----------
    states : {"esx2002", "esx6"} or None
        The states of free memory and their thresholds.
    idle_tax : float or None
        Of idle memory, from 0 to 0.9999 (0.75: Waldspurger, OSDI 2002).
    sharing : {"none", "within", "all"} or None
        Equal pages are shared not at all, within a VM (salted), or between VMs.
    balloon, compression : bool or None
        Whether hosts use them.
    """

    WHAT: ClassVar[str] = "memory policy"

    states: str | None = one_of(None, ("esx2002", "esx6"), optional=True)
    idle_tax: float | None = number(None, most=0.9999, optional=True)
    sharing: str | None = one_of(None, ("none", "within", "all"), optional=True)
    balloon: bool | None = flag(None, optional=True)
    compression: bool | None = flag(None, optional=True)


@dataclass(frozen=True, slots=True)
class PolicySpec(Spec):
    """What a cluster does by itself; None: it does not.

    Attributes
    ----------
    drs : DRSSpec or None
        Load balancing.
    dpm : DPMSpec or None
        Power management, which follows recommendations of DRS.
    ha : HASpec or None
        Restart after failures.
    memory : MemoryPolicySpec
        How hosts reclaim memory.
    """

    WHAT: ClassVar[str] = "set of policies"

    drs: DRSSpec | None = part(DRSSpec)
    dpm: DPMSpec | None = part(DPMSpec)
    ha: HASpec | None = part(HASpec)
    memory: MemoryPolicySpec = part(MemoryPolicySpec, default=MemoryPolicySpec(), optional=False)

    def check(self, whose: str) -> None:
        """Check that DPM has the DRS that it works with."""
        if self.dpm is not None and self.drs is None:
            refuse(f"dpm of {whose} must stand beside drs, got no drs", "dpm")
