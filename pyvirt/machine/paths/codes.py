"""Words and numbers of paths: policies, states, what became of a request, what the log says."""

from __future__ import annotations

from enum import IntEnum

__all__ = [
    "ArrayKind",
    "DeviceState",
    "Outcome",
    "PathEvent",
    "PathPolicy",
    "PathState",
]


class PathPolicy(IntEnum):
    """How a path is chosen: the first three for storage, the others for teams of NICs."""

    FIXED = 0
    MRU = 1
    ROUND_ROBIN = 2
    PORT_ID = 3
    MAC_HASH = 4
    IP_HASH = 5
    EXPLICIT = 6
    LOAD_BASED = 7


class ArrayKind(IntEnum):
    """Which paths of a volume can be used, and at what price."""

    ACTIVE_ACTIVE = 0
    """All alike."""
    ACTIVE_PASSIVE = 1
    """Those to the processor that owns the volume; to use another one is to move the volume."""
    ALUA = 2
    """All, but those to the owner are shorter."""


class PathState(IntEnum):
    """What the host takes a path for: the states of VMware's storage array type plug-ins."""

    ACTIVE = 0
    UNOPTIMIZED = 1
    """Active, but not to the owner (ALUA)."""
    STANDBY = 2
    """It works, but the volume must move to its processor first (active-passive)."""
    DEAD = 3
    DISABLED = 4
    """By the administrator."""


class DeviceState(IntEnum):
    """What the host takes a device or a team for."""

    ON = 0
    APD = 1
    """All paths are down, for a while perhaps; of a team: no uplink works."""
    APD_TIMEOUT = 2
    """They have been for so long that only requests of VMs are tried again."""
    PDL = 3
    """The array has said that the device is gone for good."""


class Outcome(IntEnum):
    """What became of a request."""

    PENDING = 0
    DONE = 1
    APD = 2
    """Given up when the paths had been down for too long; none of a VM's is."""
    PDL = 3
    """Refused by the array, since the device is gone."""
    LOST = 4
    """A frame that met a broken link, or a team without an uplink."""


class PathEvent(IntEnum):
    """What a row of the log says."""

    COMPONENT_DOWN = 0
    COMPONENT_UP = 1
    PATH_DEAD = 2
    """The host has seen it."""
    PATH_UP = 3
    SWITCHED = 4
    """Fixed, MRU and explicit order: another path is in use now."""
    TRESPASS = 5
    """A volume moved to another processor: `value`."""
    APD = 6
    APD_TIMEOUT = 7
    APD_OVER = 8
    PDL = 9
    UPLINK = 10
    """A slot (`value`) of a team has another uplink; path -1: none."""
    REBALANCED = 11
    """Load-based teaming moved a port (`value`) to a path."""
    PATH_DISABLED = 12
    PATH_ENABLED = 13
