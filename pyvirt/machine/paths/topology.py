"""What there is: components, the paths made of them, and devices and teams that have paths."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pyvirt.cluster.checks import number, whole
from pyvirt.errors import InvalidTypeError, InvalidValueError
from pyvirt.machine.paths.codes import ArrayKind, PathPolicy
from pyvirt.machine.paths.kernels.state import NEVER

__all__ = ["DEAD_AFTER_NS", "LINK_DOWN_NS", "Topology"]

S = 10**9

#: Until a host takes a storage path for dead: requests pause for 30 to 60 s (vSphere Storage 6.0,
#: "Path Failover and Virtual Machines"); the least of that.
DEAD_AFTER_NS = 30 * S
#: The same of an uplink whose link goes down (a choice).
LINK_DOWN_NS = S

_LARGEST = 2**31 - 1
_FAR = 2**61


@dataclass(slots=True)
class _Component:
    name: str
    kind: str
    per_io: int
    ps: int
    delay: int
    dead_after: int


@dataclass(slots=True)
class _Path:
    components: tuple[int, ...]
    processor: int
    dead_after: tuple[int, ...]


class Topology:
    """A plan of hosts' paths, from which `PathEngine` makes its arrays.

    Parts are added one by one and named by the numbers that the methods return. A path is a row of
    components, all of which must work; paths share components as they do in a real network of
    storage: an adapter, a cable, a switch, a storage processor, the array.

    Examples
    --------
    Two paths over an array with two processors:

    >>> from pyvirt.machine.paths import PathEngine, Topology
    >>> plan = Topology()
    >>> hba = [plan.component(f"vmhba{k}", "adapter", mbps=8000) for k in range(2)]
    >>> sp = [plan.component(f"SP{k}", "processor") for k in range(2)]
    >>> disk = plan.component("array", "array", iops=10_000)
    >>> volume = plan.volume("LUN0")
    >>> lun = plan.device("LUN0", [[hba[k], sp[k], disk] for k in range(2)], volume=volume)
    >>> engine = PathEngine(plan)
    >>> ids = engine.submit([0, 1000, 2000], lun, nbytes=4096)
    >>> engine.run()
    >>> engine.requests["end"].tolist()
    [104096, 204096, 304096]
    """

    def __init__(self) -> None:
        self.components: list[_Component] = []
        self.volumes: list[tuple[str, int]] = []
        self.devices: list[dict[str, Any]] = []
        self.paths: list[_Path] = []
        self._keys: dict[tuple[str, str], int] = {}

    def component(
        self,
        name: str,
        kind: str = "part",
        *,
        iops: float | None = None,
        mbps: float | None = None,
        delay_ns: int = 0,
        dead_after_ns: int = DEAD_AFTER_NS,
    ) -> int:
        """Add a component.

        Parameters
        ----------
        name, kind : str
            Both together are unique.
        iops, mbps : float, optional
            Requests, and megabits, that it serves a second at most: it serves one request after
            the other, each for as long as the slower of the two takes. None: no limit.
        delay_ns : int
            What a request spends there after its service, while others are served.
        dead_after_ns : int
            How long a host takes to see that a path is broken there, unless a path says otherwise.

        Returns
        -------
        int
            Its number.
        """
        key = (_text(kind, "kind"), _text(name, "name"))
        if key in self._keys:
            raise InvalidValueError(f"name must be new among components {kind!r}, got {name!r:.80}")
        per_io = 0 if iops is None else round(1e9 / number(iops, "iops", 1e-3, above=True))
        ps = 0 if mbps is None else round(8e6 / number(mbps, "mbps", 1.0))
        if mbps is not None and not ps:
            raise InvalidValueError(f"mbps must be at most 16 million, got {mbps!r}")
        delay = whole(delay_ns, "delay_ns", 0, _FAR)
        dead_after = whole(dead_after_ns, "dead_after_ns", 0, NEVER)
        self.components.append(_Component(name, kind, per_io, ps, delay, dead_after))
        self._keys[key] = len(self.components) - 1
        return self._keys[key]

    def find(self, kind: str, name: str) -> int:
        """Give the number of a component.

        Raises
        ------
        InvalidValueError
            There is none of that kind and name.
        """
        found = self._keys.get((kind, name))
        if found is None:
            known = [n for k, n in self._keys if k == kind]
            raise InvalidValueError(
                f"name must be one of the components {kind!r}: {', '.join(known)[:200] or 'none'}; "
                f"got {name!r:.80}"
            )
        return found

    def volume(self, name: str, *, owner: int = 0) -> int:
        """Add a volume of an array; devices of several hosts may be on it.

        Parameters
        ----------
        name : str
        owner : int
            The processor that owns it at the begin.

        Returns
        -------
        int
            Its number.
        """
        self.volumes.append((_text(name, "name"), whole(owner, "owner", 0, _LARGEST)))
        return len(self.volumes) - 1

    def device(
        self,
        name: str,
        paths: Sequence[Iterable[int]],
        *,
        volume: int | None = None,
        processors: Sequence[int] | None = None,
        kind: ArrayKind = ArrayKind.ACTIVE_ACTIVE,
        policy: PathPolicy | None = None,
        preferred: int | None = None,
        switch_ios: int = 1000,
        switch_bytes: int | None = None,
        use_unoptimized: bool = False,
        depth: int = 32,
        unoptimized_ns: int = 0,
        activation_ns: int = S,
    ) -> int:
        """Add a storage device as one host sees it.

        Parameters
        ----------
        name : str
        paths : sequence of sequences of int
            The components of each path, from the host to the disk, in the order of discovery.
        volume : int, optional
            Whose it is; by default a new one of its own.
        processors : sequence of int, optional
            The array's processor to which each path leads; -1, the default: no difference.
        kind : ArrayKind
        policy : {FIXED, MRU, ROUND_ROBIN}, optional
            By default FIXED if the array is active-active, else MRU (vSphere Storage 6.7).
        preferred : int, optional
            The path that FIXED prefers, by its position in `paths`, set by hand: it stays
            preferred when it is dead. Else it is the first of the best that works, and another one
            once that is dead (vSphere Storage 6.5).
        switch_ios, switch_bytes : int
            ROUND_ROBIN takes the next path after so many requests (1000: VMware's default), or
            bytes if they come first; None: not by bytes (10 MiB is VMware's number for it).
        use_unoptimized : bool
            Whether ROUND_ROBIN takes unoptimized paths too (VMware's ``useANO``).
        depth : int
            Requests under way at most (esxtop's DQLEN; 32: recalled, of usual drivers).
        unoptimized_ns : int
            More delay on an unoptimized path (none: a choice).
        activation_ns : int
            How long a volume takes to move to another processor (1 s: a choice).

        Returns
        -------
        int
            Its number.
        """
        kind = ArrayKind(_member(kind, "kind", ArrayKind))
        if policy is None:
            policy = PathPolicy.FIXED if kind == ArrayKind.ACTIVE_ACTIVE else PathPolicy.MRU
        policy = PathPolicy(_member(policy, "policy", PathPolicy))
        if policy > PathPolicy.ROUND_ROBIN:
            raise InvalidValueError(
                f"policy of a device must be FIXED, MRU or ROUND_ROBIN, got {policy.name}"
            )
        rows = self._rows(name, paths, "paths")
        leads = [-1] * len(rows) if processors is None else list(processors)
        if len(leads) != len(rows):
            raise InvalidValueError(f"processors must be {len(rows)} numbers, got {len(leads)}")
        leads = [whole(one, f"processors[{k}]", -1, _LARGEST) for k, one in enumerate(leads)]
        if preferred is not None:
            preferred = whole(preferred, "preferred", 0, len(rows) - 1)
        options = {
            "team": 0,
            "kind": kind,
            "policy": policy,
            "preferred": preferred,
            "switch_ios": whole(switch_ios, "switch_ios", 1, _FAR),
            "switch_bytes": 0
            if switch_bytes is None
            else whole(switch_bytes, "switch_bytes", 1, _FAR),
            "use_unoptimized": int(bool(use_unoptimized)),
            "depth": whole(depth, "depth", 1, _LARGEST),
            "detour": whole(unoptimized_ns, "unoptimized_ns", 0, _FAR),
            "activation": whole(activation_ns, "activation_ns", 1, _FAR),
        }
        if volume is None:
            volume = self.volume(name)
        options["volume"] = whole(volume, "volume", 0, len(self.volumes) - 1)
        return self._add(name, rows, leads, [None] * len(rows), options)

    def team(
        self,
        name: str,
        uplinks: Sequence[Iterable[int]],
        *,
        active: int | None = None,
        policy: PathPolicy = PathPolicy.PORT_ID,
        failback: bool = True,
        ports: int = 0,
        beacon: bool = False,
        detection_ns: int = LINK_DOWN_NS,
        link: int = 2,
    ) -> int:
        """Add a team of NICs.

        Parameters
        ----------
        name : str
        uplinks : sequence of sequences of int
            The components of each: the NIC, its cable, and what may be behind.
        active : int, optional
            The first so many are in use, the others take over in order; by default all are.
        policy : {PORT_ID, MAC_HASH, IP_HASH, EXPLICIT, LOAD_BASED}
        failback : bool
            Whether an uplink that works again takes its place back.
        ports : int
            LOAD_BASED: how many ports there are; keys of frames are below.
        beacon : bool
            Whether probes see what is broken behind the link; else nobody does.
        detection_ns : int
            How long it takes to see that an uplink is broken (1 s: a choice).
        link : int
            The components of an uplink, from the first on, that the link's state tells of.

        Returns
        -------
        int
            Its number, among those of devices.
        """
        policy = PathPolicy(_member(policy, "policy", PathPolicy))
        if policy <= PathPolicy.ROUND_ROBIN:
            raise InvalidValueError(
                f"policy of a team must be one of {', '.join(p.name for p in PathPolicy if p > 2)},"
                f" got {policy.name}"
            )
        rows = self._rows(name, uplinks, "uplinks")
        used = len(rows) if active is None else whole(active, "active", 1, len(rows))
        least = int(policy == PathPolicy.LOAD_BASED)
        count = whole(ports, "ports", least, _LARGEST)
        seen = whole(detection_ns, "detection_ns", 0, _FAR)
        near = whole(link, "link", 1, _LARGEST)
        options = {
            "team": 1,
            "policy": policy,
            "slots": used,
            "failback": int(bool(failback)),
            "ports": count if least else 0,
            "depth": _LARGEST,
            "volume": -1,
            "preferred": None,
        }
        detection = [[seen if beacon or at < near else NEVER for at in range(len(r))] for r in rows]
        return self._add(name, rows, [-1] * len(rows), detection, options)

    def _rows(self, name: str, paths: Any, what: str) -> list[tuple[int, ...]]:
        _text(name, "name")
        if isinstance(paths, (str, bytes)) or not hasattr(paths, "__iter__"):
            raise InvalidTypeError(f"{what} of {name!r} must be a list, not {paths!r:.80}")
        rows = []
        for at, row in enumerate(paths):
            if isinstance(row, (str, bytes)) or not hasattr(row, "__iter__"):
                raise InvalidTypeError(
                    f"{what}[{at}] of {name!r} must be a list of components, not {row!r:.80}"
                )
            most = len(self.components) - 1
            made = tuple(whole(c, f"{what}[{at}] of {name!r}", 0, most) for c in row)
            if not made or len(set(made)) < len(made):
                raise InvalidValueError(
                    f"{what}[{at}] of {name!r} must be components, each once, got {made}"
                )
            rows.append(made)
        if not rows:
            raise InvalidValueError(f"{what} of {name!r} must be at least one, got none")
        return rows

    def _add(
        self,
        name: str,
        rows: list[tuple[int, ...]],
        leads: Sequence[int],
        detection: Sequence[Sequence[int] | None],
        options: dict[str, Any],
    ) -> int:
        first = len(self.paths)
        for row, lead, seen in zip(rows, leads, detection, strict=True):
            after = seen or [self.components[c].dead_after for c in row]
            self.paths.append(_Path(row, lead, tuple(after)))
        self.devices.append({"name": name, "first": first, "count": len(rows), **options})
        return len(self.devices) - 1


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str) or not value:
        raise InvalidTypeError(f"{name} must be text that is not empty, got {value!r:.80}")
    return value


def _member(value: Any, name: str, kind: Any) -> Any:
    try:
        return kind(value)
    except ValueError:
        words = ", ".join(one.name for one in kind)
        raise InvalidValueError(f"{name} must be one of {words}, got {value!r:.80}") from None
