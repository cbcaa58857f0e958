"""The engine of paths: requests to storage and frames to networks, faults, and what hosts do."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import numpy.typing as npt

from pyvirt.cluster.checks import column, whole
from pyvirt.errors import InvalidTypeError, InvalidValueError
from pyvirt.machine.paths.arrays import State, grown, linked, new_state, taken
from pyvirt.machine.paths.codes import ArrayKind, DeviceState, PathEvent, PathPolicy, PathState
from pyvirt.machine.paths.kernels.state import HUNG, NEVER
from pyvirt.machine.paths.topology import Topology
from pyvirt.units import format_time

__all__ = ["PathEngine"]

S = 10**9
_FAR = 2**61
_MOST_BYTES = 2**40
_MOST_WORK = 2**53

Ints = npt.NDArray[np.int64]


class PathEngine:
    """Paths at work, event by event, in whole nanoseconds.

    Parameters
    ----------
    plan : Topology
        What there is; later changes to it change nothing here.
    apd_timeout_ns : int or None
        How long requests that are no VM's are tried again while all paths are down
        (``Misc.APDTimeout``, 140 s: vSphere Storage 6.7, "Handling Transient APD Conditions").
        None: for ever, as with APD handling switched off.
    back_after_ns : int
        From the repair of a path to the host's notice of it (0: a choice).
    balance_ns, balance_percent : int
        Load-based teaming moves a port off an uplink that was busier than 75 % over 30 s (vSphere
        Networking 6.7).

    Notes
    -----
    A request waits in its host's queue until fewer than `depth` are under way. Then the path
    selection policy gives it a path, whose components it passes one after the other: each serves
    one request at a time, first come, first served.

    What is on a path that breaks gets no answer. When the host takes the path for dead, it issues
    those requests again on another one, before what waits; if the path is repaired earlier, they
    are sent again on it. A frame of a team that meets a broken link is lost. Moving a volume to a
    path on standby (active-passive) takes `activation_ns`, and what other hosts have under way on
    paths to the processor that loses it is refused and issued again.

    While all paths are down requests wait. After `apd_timeout_ns` those of VMs wait on, the others
    are given up, as are new ones. A device that the array says is lost refuses all for good; the
    host only learns of that by a path that works (Broadcom's knowledge base, 318712).

    Of what happens at one time, faults come first, then the rest in the order in which it was
    planned, then requests that arrive. Results do not depend on how time is split into calls.

    Examples
    --------
    >>> from pyvirt.machine.paths import PathEngine, PathPolicy, Topology
    >>> plan = Topology()
    >>> nics = [plan.component(f"vmnic{k}", "adapter", mbps=1000) for k in range(2)]
    >>> team = plan.team("vSwitch0", [[nic] for nic in nics], policy=PathPolicy.IP_HASH)
    >>> engine = PathEngine(plan)
    >>> engine.uplinks(team, [0, 1, 2, 3]).tolist()
    [0, 1, 0, 1]
    >>> engine.fail(nics[1], 0)
    >>> engine.advance(2 * 10**9)
    >>> engine.uplinks(team, [0, 1, 2, 3]).tolist()
    [0, 0, 0, 0]
    """

    def __init__(
        self,
        plan: Topology,
        *,
        apd_timeout_ns: int | None = 140 * S,
        back_after_ns: int = 0,
        balance_ns: int = 30 * S,
        balance_percent: int = 75,
    ) -> None:
        if not isinstance(plan, Topology):
            raise InvalidTypeError(f"plan must be a Topology, not {plan!r:.80}")
        timeout = NEVER
        if apd_timeout_ns is not None:
            timeout = whole(apd_timeout_ns, "apd_timeout_ns", 0, _FAR)
        self._state = new_state(
            plan,
            timeout,
            whole(back_after_ns, "back_after_ns", 0, _FAR),
            whole(balance_ns, "balance_ns", 1, _FAR),
            whole(balance_percent, "balance_percent", 1, 100),
        )
        self.component_names = [one.name for one in plan.components]
        self.device_names = [str(one["name"]) for one in plan.devices]
        self.volume_names = [name for name, _ in plan.volumes]
        self._reserve(0)
        from pyvirt.machine.paths.kernels.run import begin

        begin(self._state.g)

    # --- time ------------------------------------------------------------------------------

    @property
    def now_ns(self) -> int:
        """The present time."""
        return int(self._state.g["now"][0])

    def next_event_time(self) -> int | None:
        """Give the time of the next event in nanoseconds; None: nothing is planned."""
        from pyvirt.machine.paths.kernels.run import next_time

        time = int(next_time(self._state.g))
        return None if time >= NEVER else time

    def advance(self, to_ns: int) -> None:
        """Let time go on, with all that happens up to and at `to_ns`."""
        self._run(whole(to_ns, "to_ns", self.now_ns, _FAR))

    def run(self) -> None:
        """Let time go on until nothing is planned any more.

        What waits for a path then waits still: its requests are pending.
        """
        self._run(NEVER)

    def _run(self, until: int) -> None:
        from pyvirt.machine.paths.kernels.run import GROW_HEAP, GROW_LOG, run

        while True:
            why = run(linked(self._state).g, until)
            if why == GROW_HEAP:
                self._state = self._state._replace(event=self._larger(self._state.event))
            elif why == GROW_LOG:
                self._state = self._state._replace(row=self._larger(self._state.row))
            else:
                return

    @staticmethod
    def _larger(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return grown(array, 2 * array.size)

    def _reserve(self, more: int) -> None:
        """Make room for events that are planned from outside."""
        s = self._state
        things = s.path.size + s.device.size + s.volume.size + s.component.size
        self._state = linked(
            s._replace(
                event=grown(s.event, int(s.g["planned"][0]) + more + 4 * things + 64),
                row=grown(s.row, int(s.g["logged"][0]) + 16 * things + 64),
            )
        )

    # --- what comes from outside -----------------------------------------------------------

    def submit(
        self,
        at_ns: npt.ArrayLike,
        device: npt.ArrayLike,
        *,
        nbytes: npt.ArrayLike = 0,
        work_ns: npt.ArrayLike = 0,
        vm: npt.ArrayLike = 1,
        key: npt.ArrayLike = 0,
    ) -> Ints:
        """Let requests, or frames, come.

        Parameters
        ----------
        at_ns : array_like of int
            When, in ascending order, and not before those given before or the present time.
        device : array_like of int
            To which device, or by which team.
        nbytes : array_like of int
            Their sizes.
        work_ns : array_like of int
            For how long the last component of the path serves each, beside its own time.
        vm : array_like of bool
            Whether it is a VM's, and not the host's own: those are given up in time.
        key : array_like of int
            Of frames: the port (PORT_ID, LOAD_BASED), `mac_key` or `ip_key`.

        Returns
        -------
        ndarray of int64
            Their rows in `requests`.

        Raises
        ------
        InvalidValueError, InvalidTypeError
            With the row at fault; then none is taken.
        """
        try:
            count = np.broadcast(at_ns, device, nbytes, work_ns, vm, key).size
        except ValueError as error:
            raise InvalidValueError(f"columns must be of one length: {error}") from None
        s = self._state
        first = int(s.g["requests"][0])
        at = column(at_ns, "at_ns", count, 0, _FAR)
        before = max(self.now_ns, int(s.request["at"][first - 1]) if first else 0)
        gaps = np.diff(at, prepend=before)
        if (gaps < 0).any():
            row = int(np.argmax(gaps < 0))
            floor = before if row == 0 else int(at[row - 1])
            raise InvalidValueError(f"at_ns, row {row}: must be at least {floor:,}, got {at[row]}")
        made = np.zeros(count, s.request.dtype)
        made["at"] = at
        made["device"] = column(device, "device", count, 0, s.device.size - 1)
        made["nbytes"] = column(nbytes, "nbytes", count, 0, _MOST_BYTES)
        made["work"] = column(work_ns, "work_ns", count, 0, _MOST_WORK)
        made["vm"] = column(np.asarray(vm).astype(np.int64), "vm", count, 0, 1)
        made["key"] = column(key, "key", count, 0, _FAR)
        self._check_keys(made["device"], made["key"])
        for name in ("path", "first_issue", "end", "next", "prev", "path_next", "path_prev"):
            made[name] = -1
        request = grown(s.request, first + count)
        request[first : first + count] = made
        s.g["requests"][0] = first + count
        self._state = linked(s._replace(request=request))
        return np.arange(first, first + count)

    def _check_keys(self, devices: Ints, keys: Ints) -> None:
        s = self._state
        ports = s.device["ports"][devices]
        bad = (s.device["policy"][devices] == PathPolicy.LOAD_BASED) & (keys >= ports)
        if bad.any():
            row = int(np.argmax(bad))
            raise InvalidValueError(
                f"key, row {row}: must be below the {ports[row]} ports, got {keys[row]}"
            )

    def carry(self, team: int, key: int, nbytes: int) -> None:
        """Count bytes that a port of a load-based team sends now, without frames.

        For loads that are known as rates; what a window adds up decides at its end.
        """
        from pyvirt.machine.paths.kernels.team import carry

        d = self._team(team)
        whole(key, "key", 0, _FAR)
        self._check_keys(np.array([d]), np.array([key]))
        self._reserve(1)
        carry(self._state.g[0], d, key, whole(nbytes, "nbytes", 0, 2**50))

    def uplinks(self, team: int, keys: npt.ArrayLike) -> Ints:
        """Say by which uplink of a team frames with some keys go now.

        Returns
        -------
        ndarray of int64
            Positions among the team's uplinks; -1: by none.
        """
        from pyvirt.machine.paths.kernels.team import assign

        d = self._team(team)
        wanted = column(keys, "keys", np.size(keys), 0, _FAR)
        self._check_keys(np.full(wanted.size, d), wanted)
        out = np.empty(wanted.size, np.int64)
        assign(self._state.g[0], d, wanted, out)
        return np.where(out >= 0, out - self._state.device["first"][d], -1)

    def fail(self, component: int, at_ns: int | None = None) -> None:
        """Let a component fail; it works again when it was repaired as often as it failed."""
        self._plan(0, self._component(component), 1, at_ns)

    def repair(self, component: int, at_ns: int | None = None) -> None:
        """End a failure of a component.

        More repairs than failures are counted, and the next failure then changes nothing.
        """
        self._plan(0, self._component(component), -1, at_ns)

    def lose(self, volume: int, at_ns: int | None = None) -> None:
        """Let an array lose a volume for good."""
        self._plan(1, whole(volume, "volume", 0, self._state.volume.size - 1), -1, at_ns)

    def lose_device(self, device: int, at_ns: int | None = None) -> None:
        """Let an array refuse a volume to the host of this device for good."""
        d = self._device(device)
        if self._state.device["team"][d]:
            raise InvalidValueError(
                f"device must be one of storage, got the team {self.device_names[d]!r}"
            )
        self._plan(1, 0, d, at_ns)

    def disable(self, device: int, path: int, at_ns: int | None = None) -> None:
        """Take a path, by its position, out of use, as administrators do."""
        self._plan(2, self._path(device, path), 1, at_ns)

    def enable(self, device: int, path: int, at_ns: int | None = None) -> None:
        """Let a path be used again."""
        self._plan(2, self._path(device, path), 0, at_ns)

    def _plan(self, kind: int, a: int, b: int, at_ns: int | None) -> None:
        from pyvirt.machine.paths.kernels.lists import push

        now = self.now_ns
        when = now if at_ns is None else whole(at_ns, "at_ns", now, _FAR)
        self._reserve(1)
        push(self._state.g[0], when, 0, kind, a, b, 0)

    def _component(self, component: int) -> int:
        return whole(component, "component", 0, self._state.component.size - 1)

    def _device(self, device: int) -> int:
        return whole(device, "device", 0, self._state.device.size - 1)

    def _team(self, team: int) -> int:
        d = self._device(team)
        if not self._state.device["team"][d]:
            raise InvalidValueError(f"team must be a team, got the device {self.device_names[d]!r}")
        return d

    def _path(self, device: int, path: int) -> int:
        row = self._state.device[self._device(device)]
        return int(row["first"]) + whole(path, "path", 0, int(row["count"]) - 1)

    # --- what is and what was ---------------------------------------------------------------

    @property
    def requests(self) -> npt.NDArray[Any]:
        """All requests, in the order given: a view of records, not to be written.

        Among the fields: `at`, `device`, `first_issue`, `end` (-1: not yet), `path` (the last
        one's position among all paths), `tries`, `device_ns` (from issue to end), `outcome`
        (an `Outcome`).
        """
        return _view(self._state.request[: int(self._state.g["requests"][0])])

    @property
    def log(self) -> npt.NDArray[Any]:
        """What happened: `time`, `what` (a `PathEvent`), `device`, `path`, `value`."""
        return _view(self._state.row[: int(self._state.g["logged"][0])])

    @property
    def devices(self) -> npt.NDArray[Any]:
        """The devices and teams, a record each."""
        return _view(self._state.device)

    @property
    def paths(self) -> npt.NDArray[Any]:
        """All paths, a record each; those of a device are side by side."""
        return _view(self._state.path)

    @property
    def components(self) -> npt.NDArray[Any]:
        """The components, a record each: `busy_ns`, `served`, `bytes`, `down`."""
        return _view(self._state.component)

    @property
    def hops(self) -> Ints:
        """The components of all paths, one after the other: see `first` and `hops` in `paths`."""
        return _view(self._state.hop)

    @property
    def volumes(self) -> npt.NDArray[Any]:
        """The volumes, a record each: `owner`, `lost`."""
        return _view(self._state.volume)

    def current(self, device: int) -> int:
        """Give the position of the path that a device used last, or an uplink; -1: none."""
        row = self._state.device[self._device(device)]
        return int(row["current"]) - int(row["first"]) if row["current"] >= 0 else -1

    def path_states(self, device: int) -> list[PathState]:
        """Say what the host takes each path of a device for."""
        from pyvirt.machine.paths.kernels.choose import path_state

        row = self._state.device[self._device(device)]
        first, count = int(row["first"]), int(row["count"])
        return [PathState(path_state(self._state.g[0], p)) for p in range(first, first + count)]

    def states_of_paths(self) -> Ints:
        """Give the `PathState` of all paths, as numbers."""
        s = self._state
        device = s.device[s.path["device"]]
        plain = (device["team"] == 1) | (device["kind"] == ArrayKind.ACTIVE_ACTIVE)
        plain |= s.path["processor"] < 0
        owner = np.append(s.volume["owner"], -1)[device["volume"]]
        other = np.where(device["kind"] == ArrayKind.ALUA, PathState.UNOPTIMIZED, PathState.STANDBY)
        works = np.where(plain | (s.path["processor"] == owner), PathState.ACTIVE, other)
        seen = np.where(s.path["seen"] == 1, works, PathState.DEAD)
        return np.where(s.path["disabled"] == 1, PathState.DISABLED, seen).astype(np.int64)

    def state(self, device: int) -> DeviceState:
        """Say what the host takes a device for."""
        return DeviceState(int(self._state.device["state"][self._device(device)]))

    def stats(self) -> dict[str, npt.NDArray[Any]]:
        """Give numbers of each device since the begin, by names of esxtop where it has them.

        Returns
        -------
        dict of str to ndarray
            ``DQLEN`` (depth), ``ACTV`` and ``QUED`` (now under way, and waiting), ``CMDS`` (done),
            ``FAILED``, ``MB`` (10**6 bytes), ``GAVG``, ``DAVG`` and ``KAVG`` (mean milliseconds of
            a request, its part on paths, and the rest, in the host), ``LOAD`` (mean number under
            way and waiting, over the depth), ``BOUNCED`` (issued again), ``SWITCHES`` (of paths).
        """
        d = self._state.device
        done = np.maximum(d["done"], 1)
        elapsed = max(self.now_ns, 1)
        return {
            "DQLEN": d["depth"].copy(),
            "ACTV": d["active"].copy(),
            "QUED": d["queued"].copy(),
            "CMDS": d["done"].copy(),
            "FAILED": d["failed"].copy(),
            "MB": d["bytes"] / 1e6,
            "GAVG": d["latency_ns"] / done / 1e6,
            "DAVG": d["device_ns"] / done / 1e6,
            "KAVG": (d["latency_ns"] - d["device_ns"]) / done / 1e6,
            "LOAD": d["area"] / elapsed / d["depth"],
            "BOUNCED": d["bounced"].copy(),
            "SWITCHES": d["switches"].copy(),
        }

    def lines(self) -> list[str]:
        """Give a line of text for each row of the log."""
        return [self._line(row) for row in self.log]

    def _line(self, row: Any) -> str:
        what = PathEvent(int(row["what"]))
        words = [format_time(int(row["time"])), what.name]
        value = int(row["value"])
        if what in (PathEvent.COMPONENT_DOWN, PathEvent.COMPONENT_UP):
            words.append(self.component_names[value])
        if row["device"] >= 0:
            words.append(self.device_names[row["device"]])
            if row["path"] >= 0:
                first = int(self._state.device["first"][row["device"]])
                words.append(f"path {int(row['path']) - first}")
        if what == PathEvent.TRESPASS:
            words.append(f"processor {value}")
        if what in (PathEvent.UPLINK, PathEvent.REBALANCED):
            words.append(f"{'slot' if what == PathEvent.UPLINK else 'port'} {value}")
        return " ".join(words)

    # --- state as a value -------------------------------------------------------------------

    def copy(self) -> Self:
        """Give an independent engine with the same state."""
        made = object.__new__(type(self))
        made.__dict__.update(self.__dict__)
        made._state = linked(taken(self._state))
        return made

    __copy__ = copy

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._state = linked(taken(self._state))  # the arrays are elsewhere now

    def snapshot(self) -> State:
        """Give the state, for `restore`."""
        return taken(self._state)

    def restore(self, snapshot: State) -> None:
        """Go back to a state of this engine."""
        mine: Any = snapshot  # whatever it is
        if not isinstance(mine, State) or len(mine.path) != len(self._state.path):
            raise InvalidTypeError("snapshot must be one of this engine's")
        self._state = linked(taken(snapshot))

    def hung(self) -> int:
        """Give the number of requests that wait for an answer from a broken path."""
        return int((self.requests["phase"] == HUNG).sum())

    def __repr__(self) -> str:
        s = self._state
        return (
            f"<PathEngine: {s.device.size} devices, {s.path.size} paths, "
            f"{s.component.size} components, at {format_time(self.now_ns)}>"
        )


def _view(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    view = array.view()
    view.flags.writeable = False
    return view
