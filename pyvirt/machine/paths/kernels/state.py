"""The records of an engine's flat arrays, and the codes that kernels use for them.

The first record, GLOBAL, has the addresses of all other arrays, so that kernels pass one pointer.

An index of -1 is none; times are nanoseconds. A component's service takes
``max(per_io, bytes * ps / 1000)``: the slower of its two limits.
"""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np

__all__ = [
    "ADDRESSES",
    "COMPONENT",
    "DEVICE",
    "EVENT",
    "GLOBAL",
    "INT",
    "LOG",
    "NEVER",
    "PATH",
    "REQUEST",
    "VOLUME",
]

NEVER = 2**62

# The arrays behind the addresses of GLOBAL, and what they are of.
ADDRESSES = (
    *("component", "path", "device", "volume", "request", "event", "row", "port"),
    "hop",  # components of paths, one after the other
    "dead_after",  # beside it: how long the host takes to see that the path is broken there
    "slot",  # the uplink in each slot, beside the paths of teams
    "path_first",  # paths through each component: `path_of[path_first[c]:path_first[c + 1]]`
    "path_of",
    "device_of",  # devices of volumes
    "todo",  # a ring of devices
)

COMPONENT = np.dtype(
    [
        ("per_io", "i8"),  # service of a request, at least
        ("ps", "i8"),  # picoseconds of service for each byte
        ("delay", "i8"),  # after the service; others are served meanwhile
        ("down", "i8"),  # faults that it has now
        ("busy", "i8"),  # the request in service
        ("head", "i8"),  # its queue
        ("tail", "i8"),
        ("token", "i8"),  # grows when a service ends or is broken off
        ("started", "i8"),  # when that service began
        ("busy_ns", "i8"),
        ("served", "i8"),
        ("bytes", "i8"),
    ]
)

PATH = np.dtype(
    [
        ("device", "i8"),
        ("processor", "i8"),  # of the array; -1: it is the same by all
        ("first", "i8"),  # its components in `hop`
        ("hops", "i8"),
        ("broken", "i8"),  # components of it that are down
        ("life", "i8"),  # grows when it breaks and when it is repaired
        ("seen", "i8"),  # whether the host takes it for working
        ("disabled", "i8"),
        ("head", "i8"),  # requests that were issued on it, in order
        ("tail", "i8"),
        ("issued", "i8"),
        ("bytes", "i8"),
    ]
)

DEVICE = np.dtype(
    [
        ("team", "i8"),
        ("kind", "i8"),
        ("policy", "i8"),
        ("state", "i8"),
        ("first", "i8"),  # its paths
        ("count", "i8"),
        ("volume", "i8"),
        ("lost", "i8"),  # for this host alone
        ("preferred", "i8"),
        ("by_hand", "i8"),
        ("switch_ios", "i8"),
        ("switch_bytes", "i8"),  # 0: not by bytes
        ("depth", "i8"),
        ("use_unoptimized", "i8"),
        ("detour", "i8"),  # more delay on an unoptimized path
        ("activation", "i8"),  # how long a volume takes to move
        ("current", "i8"),  # path
        ("used_ios", "i8"),  # since it became that
        ("used_bytes", "i8"),
        ("active", "i8"),  # issued and not finished
        ("queued", "i8"),  # in the host's queue
        ("head", "i8"),
        ("tail", "i8"),
        ("life", "i8"),  # grows when all paths go down, and when one is back
        ("listed", "i8"),  # whether it is to be looked at
        ("touched", "i8"),  # up to when the two areas are
        ("area", "i8"),  # requests in the system, summed up over time
        ("active_area", "i8"),
        ("done", "i8"),
        ("failed", "i8"),
        ("bytes", "i8"),
        ("latency_ns", "i8"),  # of all that are done
        ("device_ns", "i8"),  # the part of it from issue to end
        ("switches", "i8"),
        ("bounced", "i8"),  # requests that came back from a path to be issued again
        ("slots", "i8"),  # of a team: its active uplinks, in `slot[first:first + slots]`
        ("failback", "i8"),
        ("port", "i8"),  # of a load-based team: its ports in `port`
        ("ports", "i8"),
        ("window", "i8"),  # whether the end of a window is planned
    ]
)

VOLUME = np.dtype(
    [
        ("owner", "i8"),  # processor
        ("mover", "i8"),  # the path for which it is moving; -1: it is not
        ("lost", "i8"),
        ("first", "i8"),  # devices that are on it, in `device_of_volume`
        ("count", "i8"),
    ]
)

REQUEST = np.dtype(
    [
        ("at", "i8"),
        ("device", "i8"),
        ("nbytes", "i8"),
        ("work", "i8"),  # service at the path's last component, beside the component's own
        ("key", "i8"),  # of a frame: what is hashed
        ("vm", "i8"),  # whether it is a VM's, and so tried for ever
        ("phase", "i8"),
        ("path", "i8"),
        ("hop", "i8"),
        ("token", "i8"),  # grows when what it waits for does not come
        ("detour", "i8"),
        ("first_issue", "i8"),
        ("issued", "i8"),
        ("device_ns", "i8"),
        ("end", "i8"),
        ("outcome", "i8"),
        ("tries", "i8"),
        ("next", "i8"),  # in a queue
        ("prev", "i8"),
        ("path_next", "i8"),  # on its path
        ("path_prev", "i8"),
    ]
)

PORT = np.dtype([("path", "i8"), ("bytes", "i8")])

INT = np.dtype([("v", "i8")])

EVENT = np.dtype(
    [("time", "i8"), ("order", "i8"), ("kind", "i8"), ("a", "i8"), ("b", "i8"), ("token", "i8")]
)

LOG = np.dtype([("time", "i8"), ("what", "i8"), ("device", "i8"), ("path", "i8"), ("value", "i8")])


def _tag() -> str:
    """Name this version of the records and kernels.

    Numba looks only at the file of a compiled function to see whether what it has stored of it is
    still good. As a part of the type that all kernels take, the name makes it look at all.
    """
    mark = 0
    for source in sorted(Path(__file__).parent.glob("*.py")):
        mark = zlib.crc32(source.read_bytes(), mark)
    return f"version_{mark:08x}"


GLOBAL = np.dtype(
    [
        ("now", "i8"),
        ("sequence", "i8"),  # events planned so far
        ("planned", "i8"),  # those in the heap
        ("heap_room", "i8"),
        ("logged", "i8"),  # rows of the log in use
        ("log_room", "i8"),
        ("requests", "i8"),  # rows of requests in use
        ("next_arrival", "i8"),  # the first that has not come yet
        ("in_system", "i8"),  # those that have come and are not finished
        ("todo_count", "i8"),  # devices to look at before the next event
        ("todo_first", "i8"),
        ("apd_timeout", "i8"),
        ("back_after", "i8"),  # from the repair of a path to the host's notice of it
        ("window", "i8"),  # load-based teaming looks so often
        ("saturated", "i8"),  # and moves a port where an uplink is busier, in per cent
        *((name, "i8") for name in ("components", "paths", "devices", "volumes")),  # how many
        *((name, "u8") for name in ADDRESSES),
        (_tag(), "i8"),
    ]
)

# --- codes ---------------------------------------------------------------------------------------

FIXED, MRU, ROUND_ROBIN, PORT_ID, MAC_HASH, IP_HASH, EXPLICIT, LOAD_BASED = range(8)
ACTIVE_ACTIVE, ACTIVE_PASSIVE, ALUA = range(3)
ACTIVE, UNOPTIMIZED, STANDBY, DEAD, DISABLED = range(5)
ON, APD, APD_TIMEOUT, PDL = range(4)
PENDING, DONE, FAILED_APD, FAILED_PDL, LOST = range(5)

# where a request is
FUTURE, QUEUED, WAITING, SERVED, DELAYED, HUNG, OVER = range(7)

# what is planned; the classes of events at the same time: faults, the rest, arrivals
FAULT, LOSS, DISABLE, SEE_DEAD, SEE_UP, SERVICE, ARRIVE, TIMEOUT, ACTIVATE, WINDOW = range(10)
CLASS = 2**60

(
    L_DOWN,
    L_UP,
    L_PATH_DEAD,
    L_PATH_UP,
    L_SWITCHED,
    L_TRESPASS,
    L_APD,
    L_APD_TIMEOUT,
    L_APD_OVER,
    L_PDL,
    L_UPLINK,
    L_REBALANCED,
    L_DISABLED,
    L_ENABLED,
) = range(14)
