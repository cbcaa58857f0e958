"""From a plan to the arrays of an engine, and larger ones where they are full."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pyvirt.machine.paths.kernels import state as k
from pyvirt.machine.paths.topology import Topology

__all__ = ["State", "grown", "linked", "new_state", "taken"]

Records = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]


class State(NamedTuple):
    """All arrays; `g` has the addresses of the others once `linked` has written them."""

    g: Records
    component: Records
    path: Records
    device: Records
    volume: Records
    request: Records
    event: Records
    row: Records
    port: Records
    hop: Ints
    dead_after: Ints
    slot: Ints
    path_first: Ints
    path_of: Ints
    device_of: Ints
    todo: Ints


def new_state(plan: Topology, apd_timeout: int, back_after: int, window: int, load: int) -> State:
    """Give the arrays at time 0, when all works and no device has chosen a path."""
    g = np.zeros(1, k.GLOBAL)
    g["apd_timeout"], g["back_after"] = apd_timeout, back_after
    g["window"], g["saturated"] = window, load
    for name in ("components", "paths", "devices", "volumes"):
        g[name] = len(getattr(plan, name))
    hops = [c for path in plan.paths for c in path.components]
    through: list[list[int]] = [[] for _ in plan.components]
    for p, path in enumerate(plan.paths):
        for c in path.components:
            through[c].append(p)
    path_first = np.zeros(len(plan.components) + 1, np.int64)
    path_first[1:] = np.cumsum([len(one) for one in through])
    on_volume: list[list[int]] = [[] for _ in plan.volumes]
    for d, device in enumerate(plan.devices):
        if device["volume"] >= 0:
            on_volume[device["volume"]].append(d)
    return State(
        g=g,
        component=_components(plan),
        path=_paths(plan),
        device=_devices(plan),
        volume=_volumes(plan, on_volume),
        request=np.zeros(0, k.REQUEST),
        event=np.zeros(0, k.EVENT),
        row=np.zeros(0, k.LOG),
        port=_ports(plan),
        hop=_ints(hops),
        dead_after=_ints([t for path in plan.paths for t in path.dead_after]),
        slot=np.arange(len(plan.paths), dtype=np.int64),
        path_first=path_first,
        path_of=_ints([p for one in through for p in one]),
        device_of=_ints([d for one in on_volume for d in one]),
        todo=np.zeros(max(1, len(plan.devices)), np.int64),
    )


def _components(plan: Topology) -> npt.NDArray[Any]:
    made = np.zeros(len(plan.components), k.COMPONENT)
    for row, one in zip(made, plan.components, strict=True):
        row["per_io"], row["ps"], row["delay"] = one.per_io, one.ps, one.delay
    for name in ("busy", "head", "tail"):
        made[name] = -1
    return made


def _paths(plan: Topology) -> npt.NDArray[Any]:
    made = np.zeros(len(plan.paths), k.PATH)
    first = 0
    for row, one in zip(made, plan.paths, strict=True):
        row["processor"], row["first"], row["hops"] = one.processor, first, len(one.components)
        first += len(one.components)
    for d, device in enumerate(plan.devices):
        made["device"][device["first"] : device["first"] + device["count"]] = d
    made["seen"] = 1
    made["head"] = made["tail"] = -1
    return made


def _devices(plan: Topology) -> npt.NDArray[Any]:
    made = np.zeros(len(plan.devices), k.DEVICE)
    port = 0
    for row, one in zip(made, plan.devices, strict=True):
        for name, value in one.items():
            if name not in ("name", "preferred"):
                row[name] = value
        hand = one["preferred"]
        row["preferred"] = -1 if hand is None else one["first"] + hand
        row["by_hand"] = hand is not None
        row["current"] = one["first"] if one["team"] and one["policy"] == k.EXPLICIT else -1
        row["port"] = port
        port += one.get("ports", 0)
    made["head"] = made["tail"] = -1
    return made


def _volumes(plan: Topology, devices: list[list[int]]) -> npt.NDArray[Any]:
    made = np.zeros(len(plan.volumes), k.VOLUME)
    first = 0
    for row, (_, owner), those in zip(made, plan.volumes, devices, strict=True):
        row["owner"], row["mover"], row["first"], row["count"] = owner, -1, first, len(those)
        first += len(those)
    return made


def _ports(plan: Topology) -> npt.NDArray[Any]:
    made = np.zeros(sum(device.get("ports", 0) for device in plan.devices), k.PORT)
    made["path"] = -1
    return made


def _ints(values: list[int]) -> npt.NDArray[np.int64]:
    return np.array(values, dtype=np.int64)


def grown(array: npt.NDArray[Any], least: int) -> npt.NDArray[Any]:
    """Give an array with the same rows and room for more."""
    if least <= array.size:
        return array
    made = np.zeros(max(least, 2 * array.size), array.dtype)
    made[: array.size] = array
    return made


def taken(state: State) -> State:
    """Give a copy of all arrays."""
    return State(*(array.copy() for array in state))


def linked(state: State) -> State:
    """Write down where the arrays are, and how much room there is."""
    g = state.g
    for name in k.ADDRESSES:
        g[name] = getattr(state, name).ctypes.data
    g["heap_room"], g["log_room"] = state.event.size, state.row.size
    return state
