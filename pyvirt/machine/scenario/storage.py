"""Datastores of a scenario: thin disks that grow, disks that move, paths that fail."""

from __future__ import annotations

from typing import Any

import numpy as np

from pyvirt.cluster import NONE, ConstantRate, Disk, migrate_storage
from pyvirt.errors import AdmissionError
from pyvirt.machine.paths import Datastores, Site
from pyvirt.machine.paths.site import PATH_FAULTS
from pyvirt.machine.scenario.calendar import NEVER
from pyvirt.machine.scenario.system import ON, Follower, System
from pyvirt.spec import ScenarioSpec

__all__ = ["Storage", "path_engine"]

BLOCK = 1 << 20
#: What a datastore without an array carries in a move: 10 Gbit/s (a choice).
DEFAULT_BYTES_S = 1.25e9


def path_engine(spec: ScenarioSpec) -> tuple[Any, Any, list[Any]]:
    """Make the paths of a scenario in which some fail.

    Returns
    -------
    (Site, PathEngine, list of StorageLoss), or (None, None, [])
        The losses are those of the whole scenario: paths do not depend on what hosts do.
    """
    faults = [fault for fault in spec.faults if fault.what in PATH_FAULTS]
    if not faults:
        return None, None, []
    site = Site(spec.cluster)
    engine = site.engine()
    for fault in faults:
        site.fault(engine, fault)
    ahead = engine.copy()
    ahead.advance(spec.duration_ns)
    return site, engine, site.losses(ahead)


class Storage(Follower):
    """Space and paths.

    Parameters
    ----------
    system : System
    paths : PathEngine or None
    """

    def __init__(self, system: System, paths: Any) -> None:
        self._system, self._paths = system, paths
        self._lines = 0
        self.stores: Datastores | None = None
        self._disks: dict[str, int] = {}
        self._growth: list[tuple[int, int, float]] = []
        self._moving: dict[int, dict[str, int]] = {}
        described = system.spec.cluster
        if described.datastores:
            self.stores = Datastores.from_spec(described)
            self._disks = {name: row for row, name in enumerate(self.stores.disk_names)}
        for row, vm in enumerate(described.vms):
            load = None if vm.workload is None else vm.workload.disk
            thin = [one for one in vm.disks if one.provisioning == "thin"]
            if load is None or not load.write_growth or not thin:
                continue
            rate = load.writes_per_s * load.request_size * load.write_growth / len(vm.disks)
            for one in thin:
                disk = self._disks.get(f"{vm.name}/{one.name}", -1)
                if disk >= 0 and rate:
                    self._growth.append((row, disk, rate))
        self._rest = np.zeros(len(self._growth))
        system.followers.append(self)

    @property
    def due(self) -> int:
        """When a path changes next."""
        if self._paths is None:
            return NEVER
        time = self._paths.next_event_time()
        return NEVER if time is None else int(time)

    def happen(self, now: int) -> None:
        """Let the paths go on."""
        if self._paths is None:
            return
        self._paths.advance(now)
        log = self._paths.log
        if len(log) > self._lines:
            for line in self._paths.lines()[self._lines :]:
                self._system.note("path", text=line.partition(" ")[2].partition(" ")[2])
            self._lines = len(log)
            self._system.fleet.see_paths()

    def grow(self, dt_ns: int) -> None:
        """Let thin disks grow by what was written in a step; who finds no room stands still."""
        stores, system = self.stores, self._system
        if stores is None or not self._growth:
            return
        for at, (row, disk, rate) in enumerate(self._growth):
            if system.state[row] != ON or row in system.stuns:
                continue
            self._rest[at] += rate * dt_ns / 1e9
            whole = int(self._rest[at])
            self._rest[at] -= whole
            if whole and not stores.write([disk], [whole])[0]:
                name = stores.disk_names[disk]
                store = stores.names[int(stores.disks["store"][disk])]
                system.stun(row, f"disk {name}")
                system.note("disk-full", vm=row, text=f"{name} on {store}")
        self._retry()

    def _retry(self) -> None:
        if self.stores is None:
            return
        for disk in self.stores.retry():
            name = self.stores.disk_names[disk]
            row = self._system.vm_names.index(name.rpartition("/")[0])
            self._system.go_on(row, f"disk {name}")
            self._system.note("disk-goes-on", vm=row, text=name)

    def move(self, row: int, store: str) -> None:
        """Move all disks of a machine to a datastore, by mirroring while it runs."""
        system, stores = self._system, self.stores
        spec = system.vms[row].spec
        if stores is None or row in self._moving:
            why = "it is on its way" if row in self._moving else "no datastores are described"
            system.note("refused", vm=row, text=f"storage migration: {why}")
            return
        to = stores.names.index(store)
        mine = {
            one.name: self._disks[f"{spec.name}/{one.name}"]
            for one in spec.disks
            if f"{spec.name}/{one.name}" in self._disks
        }
        mine = {name: k for name, k in mine.items() if stores.disks["store"][k] != to}
        size = sum(int(stores.disks["used"][k]) for k in mine.values())
        if not mine:
            system.note(
                "refused", vm=row, text=f"storage migration: nothing of it is beside {store}"
            )
            return
        sources = {stores.names[int(stores.disks["store"][k])] for k in mine.values()}
        if not self._in_reach(row, store, *sorted(sources)):
            return
        free = stores.free(to)
        if size > free:
            text = f"storage migration: {store} has {free:,} bytes free, {size:,} are needed"
            system.note("refused", vm=row, text=text)
            return
        load = None if spec.workload is None else spec.workload.disk
        writes = 0.0 if load is None else load.writes_per_s * load.request_size / BLOCK
        if system.state[row] != ON:
            writes = 0.0
        blocks = max(1, -(-size // BLOCK))
        speed = self._speed(store)
        plan = migrate_storage(Disk(blocks * BLOCK), ConstantRate(writes), speed)
        self._moving[row] = mine
        system.note("storage-migration", vm=row, text=f"to {store}; {plan.reason}")
        end = system.now + max(1, plan.total_ns)
        system.calendar.enter(max(system.now, end - plan.downtime_ns), self._still, row)
        system.calendar.enter(end, self._moved, row, to, store, plan.downtime_ns)

    def _still(self, row: int) -> None:
        if self._system.state[row] == ON:
            self._system.stun(row, "storage migration")

    def _moved(self, row: int, to: int, store: str, downtime_ns: int) -> None:
        system, stores = self._system, self.stores
        assert stores is not None
        self._system.go_on(row, "storage migration")
        mine = self._moving.pop(row)
        if not self._in_reach(row, store, value=downtime_ns):
            return
        try:
            for disk in mine.values():
                stores.move(disk, to)
        except AdmissionError as error:
            text = f"storage migration: {error}"
            system.note("refused", vm=row, text=text, value=downtime_ns)
            return
        system.put_disks(row, mine, store)
        system.note("storage-migrated", vm=row, text=f"to {store}", value=downtime_ns)
        self._retry()

    def _in_reach(self, row: int, *stores: str, value: float = 0.0) -> bool:
        """Say whether a machine's host, if it has one, reaches datastores, and note it if not."""
        system = self._system
        host = int(system.cluster.vms.host[row])
        lost = [one for one in stores if host != NONE and not system.reaches(host, one)]
        if lost:
            text = f"storage migration: the host does not reach {', '.join(lost)}"
            system.note("refused", vm=row, host=host, text=text, value=value)
        return not lost

    def _speed(self, store: str) -> float:
        described = self._system.spec.cluster
        arrays = {one.name: one for one in described.arrays}
        for one in described.datastores:
            if one.name == store and one.array:
                return arrays[one.array].mbps * 125_000.0
        return DEFAULT_BYTES_S

    # --- what System tells ---

    def started(self, row: int, host: int) -> None:
        """Let a machine whose datastore is still full stand still again."""
        if self.stores is None:
            return
        stopped = self.stores.stopped
        for name, disk in self._disks.items():
            if stopped[disk] and name.rpartition("/")[0] == self._system.vm_names[row]:
                self._system.stun(row, f"disk {name}")
