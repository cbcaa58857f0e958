"""What DRS thinks that a migration costs, and what it asks in return."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from pyvirt.errors import InvalidValueError

__all__ = ["MigrationCost"]


@dataclass(frozen=True, slots=True)
class MigrationCost:
    """Parameters of DRS's cost-benefit-risk analysis.

    A migration takes as long as its memory takes over the slower of both hosts' networks, with
    the pages that are dirtied meanwhile. It costs CPU on both hosts, its memory on both hosts, and
    the downtime. Its benefit is what more the hosts deliver while demand is stable. The vendor's
    formula is not public; this is our model, after the description in Gulati et al., "VMware
    Distributed Resource Management", VMware Technical Journal 1(1), 2012, as recalled.

    Parameters
    ----------
    stable_s : float, default 300
        For how long the present demand is thought to last: one interval of DRS.
    demand_spread : float, default 1
        The risk: a host's demand is thought to lie anywhere within this part of it, up or down.
        With 1 it may double or vanish, so that a host is crowded from half of its capacity on.
    downtime_s : float, default 0.5
        For which the VM gets nothing. "Less than a second" (Nelson et al. 2005, recalled).
    cores_1gbe, cores_10gbe : float, default 0.3 and 1
        Cores that a migration takes on each host at 1 and 10 Gbit/s; in between by a straight
        line (recalled).
    benefit_over_cost : float, default 1
        By how much the benefit must exceed the cost.
    """

    stable_s: float = 300.0
    demand_spread: float = 1.0
    downtime_s: float = 0.5
    cores_1gbe: float = 0.3
    cores_10gbe: float = 1.0
    benefit_over_cost: float = 1.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise InvalidValueError(f"{field.name} must be a number, got {value!r:.80}")
            if not 0 <= value < float("inf"):
                raise InvalidValueError(
                    f"{field.name} must be finite and not negative, got {value}"
                )
        if self.demand_spread > 1:
            raise InvalidValueError(
                f"demand_spread must be at most 1, as no demand is negative; "
                f"got {self.demand_spread}"
            )

    def cores(self, link_mbps: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Give the cores that a migration takes on a host with such a network."""
        speed = np.asarray(link_mbps, dtype=np.float64)
        return np.interp(speed, [1000.0, 10_000.0], [self.cores_1gbe, self.cores_10gbe])
