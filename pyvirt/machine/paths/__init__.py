"""Storage and network paths: multipathing, teams of NICs, queues, datastores.

Importing this loads no kernels; Numba comes with the first `PathEngine`.
"""

from pyvirt.machine.paths.codes import (
    ArrayKind,
    DeviceState,
    Outcome,
    PathEvent,
    PathPolicy,
    PathState,
)
from pyvirt.machine.paths.datastores import Datastores
from pyvirt.machine.paths.engine import PathEngine
from pyvirt.machine.paths.keys import ip_key, mac_key
from pyvirt.machine.paths.latency import Latencies
from pyvirt.machine.paths.site import Site
from pyvirt.machine.paths.steady import Steady, steady
from pyvirt.machine.paths.topology import Topology

__all__ = [
    "ArrayKind",
    "Datastores",
    "DeviceState",
    "Latencies",
    "Outcome",
    "PathEngine",
    "PathEvent",
    "PathPolicy",
    "PathState",
    "Site",
    "Steady",
    "Topology",
    "ip_key",
    "mac_key",
    "steady",
]
