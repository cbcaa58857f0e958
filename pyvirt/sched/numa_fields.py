"""Home nodes, as a scenario file has them."""

from __future__ import annotations

import dataclasses
from typing import Any

from pyvirt.sched.fields import Fields
from pyvirt.sched.numa import Numa
from pyvirt.sched.topology import Topology

__all__ = ["check_nodes", "read_numa"]

MOST_TIME = 60 * 10**9
BOUNDS = {"threshold_percent": (0, 100), "drain_pages": (1, 0xFFFFFFFF)}


def read_numa(fields: Fields) -> Numa:
    """Read the attributes of `Numa`, times without ``_ns``; what is not there has its default."""
    given: dict[str, Any] = {}
    for each in dataclasses.fields(Numa):
        key = each.name.removesuffix("_ns")
        if key not in fields:
            fields.raw(key)
        elif key != each.name:
            given[each.name] = fields.time(key)
            if given[each.name] > MOST_TIME:
                fields.refuse(key, "a time up to 60 s")
        elif isinstance(each.default, bool):
            given[each.name] = fields.flag(key)
        elif isinstance(each.default, float):
            given[each.name] = fields.number(key)
        else:
            given[each.name] = fields.integer(key, *BOUNDS[key])
    fields.finish("a numa table")
    return Numa(**given)


def check_nodes(fields: Fields, topology: Topology | None) -> None:
    """Refuse a host on which no VM would get a home: see the notes of `Numa`."""
    if topology is not None and 2 <= topology.nodes <= 16 and topology.cores >= 4:
        cores: dict[int, set[int]] = {}
        for core, node in zip(topology.core, topology.node, strict=True):
            cores.setdefault(int(node), set()).add(int(core))
        if min(map(len, cores.values())) >= 2:
            return
    had = "there is none" if topology is None else f"it is {topology!r}"
    fields.refuse(
        None, f"beside a [topology] with 2 to 16 nodes of at least 2 cores, 4 in all; {had}"
    )
