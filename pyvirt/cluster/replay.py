"""Days of demand over a cluster under any policy: energy, missed CPU, migrations, failures."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy.typing as npt

from pyvirt.cluster.model import Cluster
from pyvirt.cluster.replay_engine import Demand, Replay
from pyvirt.cluster.replay_records import Replayed, ReplayOptions, ReplayPolicy

__all__ = ["replay"]


def replay(
    cluster: Cluster,
    traces: Demand | npt.ArrayLike,
    policy: ReplayPolicy | None = None,
    *,
    capacity_khz: npt.ArrayLike | None = None,
    interval_ns: int | None = None,
    failures: Iterable[Any] = (),
    options: ReplayOptions | None = None,
    records: bool = False,
    host_records: bool = False,
) -> Replayed:
    """Replay demand over a cluster.

    Parameters
    ----------
    cluster : Cluster
        Where it starts; it is not changed. VMs that are on and have no host are placed first, as
        far as they can be.
    traces : DemandTraces, or array_like of int
        Row v is the demand of VM v: in the array kHz, shape (V, T). Memory of traces, where there
        is any, becomes the VMs' memory demand, which policies see.
    policy : ReplayPolicy, optional
        What is asked at the begin of each interval: see `ReplayPolicy`, `Actions`, `every` and
        `DPMPolicy`. Without one VMs stay where they are.
    capacity_khz : array_like, optional
        What a fraction of 1 in the traces is, see `DemandTraces.khz`.
    interval_ns : int, optional
        Needed for an array; whole milliseconds.
    failures : rows of `REPLAY_FAILURE`
        Hosts that fail, and when they are back; see `random_failures`.
    options : ReplayOptions, optional
        What is assumed of power, migrations and restarts.
    records : bool, default False
        Whether the result has a row for each interval, and each event.
    host_records : bool, default False
        Whether it has a row for each interval and host.

    Returns
    -------
    Replayed

    Raises
    ------
    InvalidTypeError, InvalidValueError
        Traces of another number of machines, or NaN in them; what a policy gives that is no action.

    Notes
    -----
    Times are whole milliseconds, CPU whole kHz: sums do not depend on order. A VM gets at most its
    demand, its limit and as many cores as it has vCPUs. If the VMs of a host want more than it has,
    less what migrations take, they get parts by their shares, and at least their reservations;
    pools are left to the policy. Power follows the host's table by the CPU that is used.

    A migration takes as long as `migrate_many` says, at its end the VM stands still for the
    downtime; it takes CPU on both hosts (`ReplayOptions.migration_cores`). The VMs of a host that
    fails start again elsewhere after `ReplayOptions.restart_ns`, by priority, where `place` finds
    a host.

    Examples
    --------
    Two hosts of 10 GHz, of 100 W when idle and 200 W when busy, for an hour:

    >>> import numpy as np
    >>> from pyvirt.cluster import Cluster, replay
    >>> cluster = Cluster.from_tables(
    ...     hosts={"cpu_mhz": [10_000, 10_000], "memory_bytes": [64 << 30, 64 << 30]},
    ...     vms={"host": [0, 0], "vcpus": [4, 4], "memory_bytes": [4 << 30, 4 << 30]},
    ...     power_tables=[np.linspace(100, 200, 11)],
    ... )
    >>> demand = np.full((2, 12), 6_000_000)
    >>> result = replay(cluster, demand, interval_ns=300 * 10**9)
    >>> result.energy_kwh, round(result.shortfall, 4)
    (0.3, 0.1667)
    """
    made = Replay(
        cluster,
        traces,
        policy,
        capacity_khz=capacity_khz,
        interval_ns=interval_ns,
        failures=failures,
        options=options,
        records=records,
        host_records=host_records,
    )
    return made.run().result()
