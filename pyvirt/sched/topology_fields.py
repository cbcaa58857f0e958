"""The topology of a host, as a scenario file has it."""

from __future__ import annotations

from typing import Any

from pyvirt.sched.fields import Fields
from pyvirt.sched.topology import Topology
from pyvirt.units import parse_time

__all__ = ["read_topology"]

COUNTS = ("sockets", "nodes_per_socket", "cores", "threads", "llcs_per_node")
MOST = 1024


def read_topology(fields: Fields) -> Topology:
    """Read the counts of `Topology`, its `smt`, and ``migration``, a list of times."""
    given: dict[str, Any] = {}
    for key in COUNTS:
        count = fields.integer(key, 1, MOST)
        if count is not None:
            given[key] = count
    smt = fields.raw("smt")
    if smt is not None:
        factors = smt if isinstance(smt, list) else [smt]
        if not all(isinstance(f, (int, float)) and not isinstance(f, bool) for f in factors):
            fields.refuse("smt", "a number, or a list of numbers")
        given["smt"] = smt
    migration = fields.raw("migration")
    if migration is not None:
        if not isinstance(migration, list):
            fields.refuse(
                "migration", 'a list of times, such as ["1us", "2us", "3us", "5us", "9us"]'
            )
        given["migration_ns"] = fields.said(
            "migration", lambda: [parse_time(each, "each time") for each in migration]
        )
    fields.finish("a topology")
    return fields.said(None, lambda: Topology(**given))
