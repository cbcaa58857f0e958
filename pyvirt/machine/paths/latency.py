"""How long a request takes on a path that nothing else is on."""

from __future__ import annotations

from pyvirt.errors import InvalidTypeError
from pyvirt.machine.paths.engine import PathEngine
from pyvirt.machine.paths.steady import steady
from pyvirt.spec import VMSpec

__all__ = ["Latencies"]


class Latencies:
    """The times of single requests, by host and datastore.

    Parameters
    ----------
    engine : PathEngine
        With the paths as they are; its device ``host/datastore`` is that of a datastore.

    Examples
    --------
    >>> from pyvirt.machine.paths import Latencies, Site
    >>> from pyvirt.spec import ArraySpec, ClusterSpec, DatastoreSpec, DiskSpec, HostSpec, VMSpec
    >>> spec = ClusterSpec(
    ...     hosts=[HostSpec("h0", datastores=["store"])],
    ...     arrays=[ArraySpec("san", latency_ns=300_000, iops=10_000)],
    ...     datastores=[DatastoreSpec("store", array="san")],
    ... )
    >>> Latencies(Site(spec).engine()).of("h0", VMSpec("v", disks=[DiskSpec("d", 1, "store")]))
    400000
    """

    def __init__(self, engine: PathEngine) -> None:
        if not isinstance(engine, PathEngine):
            raise InvalidTypeError(f"engine must be a PathEngine, not {engine!r:.80}")
        self._engine = engine.copy()
        self._device = {name: at for at, name in enumerate(engine.device_names)}
        self._found: dict[int, list[float]] = {}

    def of(self, host: str, spec: VMSpec) -> int:
        """Give the mean time in ns of a request of a machine to its disks, each as often.

        Parameters
        ----------
        host : str
            Where it runs.
        spec : VMSpec
            Its disks, and the size of its requests. A disk on no device takes no time.
        """
        size = 4096 if spec.workload is None else spec.workload.disk.request_size
        if size not in self._found:
            self._found[size] = steady(self._engine, 0.0, nbytes=size).latency_ns.tolist()
        times = self._found[size]
        devices = [self._device.get(f"{host}/{disk.datastore}") for disk in spec.disks]
        total = sum(times[at] for at in devices if at is not None)
        return round(total / len(devices)) if devices else 0
