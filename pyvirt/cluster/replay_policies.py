"""Policies for replays: what this package decides about a cluster, interval by interval."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from pyvirt.cluster.checks import whole
from pyvirt.cluster.dpm import DPMOptions, dpm
from pyvirt.cluster.drs import drs
from pyvirt.cluster.history import DemandHistory
from pyvirt.cluster.model import Cluster
from pyvirt.cluster.replay_records import Actions
from pyvirt.cluster.spread import spread
from pyvirt.cluster.tables import HostState
from pyvirt.errors import InvalidTypeError

__all__ = ["DPMPolicy", "DRSPolicy", "SpreadPolicy"]


class SpreadPolicy:
    """Even out how full hosts are, by single moves from the fullest to the emptiest.

    Parameters
    ----------
    most : int, default 50
        Moves at a time.
    """

    def __init__(self, most: int = 50) -> None:
        self.most = whole(most, "most", 1)

    def step(self, cluster: Cluster, when_ns: int) -> Actions:
        """Move what helps."""
        return Actions(_spread(cluster, self.most))


class DRSPolicy:
    """Load balancing as `pyvirt.cluster.drs` recommends it.

    Parameters
    ----------
    level : int, default 3
        Of migration, 1 to 5.
    **options
        As for `drs`.

    Notes
    -----
    Only what DRS makes without being asked is done.
    """

    def __init__(self, level: int = 3, **options: Any) -> None:
        self.level = whole(level, "level", 1, 5)
        self.options = options

    def step(self, cluster: Cluster, when_ns: int) -> Actions:
        """Move what is recommended."""
        made = drs(cluster, level=self.level, **self.options)
        chosen = np.flatnonzero(made.applied)
        # A VM that is moved twice goes where the last move takes it.
        last = {int(made.vm[i]): int(made.target[i]) for i in chosen}
        return Actions(list(last.items()))


class DPMPolicy:
    """Distributed power management, see `pyvirt.cluster.dpm`.

    Parameters
    ----------
    options : DPMOptions, optional
        Thresholds and windows.
    interval_ns : int, default 5 minutes
        Of the replay: each interval's demand is one sample of the history.
    patience : int, default 4
        Intervals after which a host that could not be emptied stays on after all.

    Notes
    -----
    While a host is on its way to standby, nothing else is decided: one pass is carried out before
    the next. When hosts have come back, VMs are spread over all that are on, as `SpreadPolicy` does
    (both ours).
    """

    def __init__(
        self,
        options: DPMOptions | None = None,
        *,
        interval_ns: int = 300 * 10**9,
        patience: int = 4,
    ) -> None:
        self.options = DPMOptions() if options is None else options
        if not isinstance(self.options, DPMOptions):
            raise InvalidTypeError(f"options must be DPMOptions, got {options!r:.80}")
        self.interval_ns = whole(interval_ns, "interval_ns", 1)
        self.patience = whole(patience, "patience", 1)
        self._history: DemandHistory | None = None
        self._leaving: dict[int, int] = {}
        self._coming: set[int] = set()

    def step(self, cluster: Cluster, when_ns: int) -> Actions | None:
        """Record demand, and decide on power."""
        if self._history is None:
            span = max(self.options.on_window_ns, self.options.off_window_ns, self.interval_ns)
            self._history = DemandHistory(
                len(cluster.vms), span_ns=span, interval_ns=self.interval_ns
            )
        self._history.record(cluster)
        state = cluster.hosts.state
        back = {host for host in self._coming if state[host] == HostState.ON}
        self._coming = {host for host in self._coming if state[host] == HostState.STANDBY}
        self._leaving = {
            host: passed + 1
            for host, passed in self._leaving.items()
            if state[host] == HostState.ON
        }
        late = [host for host, passed in self._leaving.items() if passed > self.patience]
        for host in late:
            del self._leaving[host]
        if late:
            return Actions(power_on=late)
        if back:
            return Actions(_spread(cluster, 1000))
        if self._leaving:
            return None
        plan = dpm(cluster, self._history, self.options)
        on = [a.host for a in plan.actions if a.action == "on" and a.host not in self._coming]
        off = [a.host for a in plan.actions if a.action == "off"]
        self._coming.update(on)
        self._leaving.update(dict.fromkeys(off, 0))
        # Each action is judged with those before it done, and may move on what these moved.
        before, after = cluster.vms.host, plan.after.vms.host
        moved = np.flatnonzero(before != after) if off else np.empty(0, np.int64)
        return Actions(np.stack([moved, after[moved]], axis=1), on, off)


def _spread(cluster: Cluster, most: int) -> npt.NDArray[np.int64]:
    """Give moves that even out how full hosts are."""
    after = cluster.copy()
    spread(after, cluster.vms.demand, most=most)
    moved = np.flatnonzero(after.vms.host != cluster.vms.host)
    return np.stack([moved, after.vms.host[moved]], axis=1)
