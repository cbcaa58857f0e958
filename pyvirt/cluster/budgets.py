"""How many migrations run at once, and how long each takes when they share the links.

Every operation has a cost against each host, network and datastore that it uses, and each of these
has a most that it bears at a time; an operation that would exceed one waits ("Limits on
Simultaneous Migrations", vCenter Server and Host Management 6.5 and 6.7, GUID-25EA5833). How the
queue is ordered is not documented; both orders here are our choice.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from pyvirt.cluster.checks import column, whole
from pyvirt.cluster.columns import ClusterError
from pyvirt.errors import InvalidTypeError, InvalidValueError
from pyvirt.units import format_time

__all__ = ["Budgets", "Kind", "Schedule", "Site", "schedule_migrations"]

Ints = npt.NDArray[np.int64]

# What fits into 63 bits in millionths; larger operations are counted in larger grains.
LARGEST_GRAINS = 2**63 // 10**6 // 2
LARGEST_BYTES = LARGEST_GRAINS * 256
LONGEST_NS = 2**61


class Kind(IntEnum):
    """What an operation is."""

    VMOTION = 0
    """Memory, from host to host."""
    STORAGE = 1
    """Disks, from datastore to datastore, on one host."""
    SHARED_NOTHING = 2
    """Both at once."""
    OTHER = 3
    """Cloning, deployment, cold migration."""


@dataclass(frozen=True, slots=True)
class Budgets:
    """The documented limits and costs; tuples are in the order of `Kind`.

    Attributes
    ----------
    host : int
        What a host bears: 8 vMotions, 2 storage vMotions, or 1 and 4.
    network_1g, network_10g : int
        What a network of 1 Gbit/s, and of 10 Gbit/s or more, bears.
    datastore : int
        What a datastore bears: 128 vMotions or 8 storage vMotions.
    host_costs, network_costs, datastore_costs : tuple of int
        What an operation takes of each host, network and datastore that it uses. A cost of
        other operations against datastores is not documented; 0 is our choice.
    """

    host: int = 8
    network_1g: int = 4
    network_10g: int = 8
    datastore: int = 128
    host_costs: tuple[int, int, int, int] = (1, 4, 4, 1)
    network_costs: tuple[int, int, int, int] = (1, 0, 1, 0)
    datastore_costs: tuple[int, int, int, int] = (1, 16, 16, 0)

    def __post_init__(self) -> None:
        for name in ("host", "network_1g", "network_10g", "datastore"):
            whole(getattr(self, name), name, 1)
        for name in ("host_costs", "network_costs", "datastore_costs"):
            costs = getattr(self, name)
            if not isinstance(costs, tuple) or len(costs) != len(Kind):
                raise InvalidTypeError(f"{name} must be {len(Kind)} integers, got {costs!r:.80}")
            for kind, cost in zip(Kind, costs, strict=True):
                whole(cost, f"{name} of {kind.name}", 0)


@dataclass(frozen=True, slots=True)
class Site:
    """What migrations use.

    Attributes
    ----------
    host_mbps : array_like of int, shape (H,)
        What each host sends, and at the same time receives, for migrations: megabits a second.
    network_mbps : array_like of int, shape (N,)
        Speed of the migration networks' adapters, which sets their budgets.
    trunk_mbps : array_like of int, shape (N,)
        What a network carries in all; 0: as much as its hosts send.
    read_mbps, write_mbps : array_like of int, shape (D,)
        What each datastore reads and writes for migrations; 0: no limit.
    """

    host_mbps: npt.ArrayLike
    network_mbps: npt.ArrayLike = (10_000,)
    trunk_mbps: npt.ArrayLike = 0
    read_mbps: npt.ArrayLike = ()
    write_mbps: npt.ArrayLike = ()


SCHEDULED = np.dtype(
    [
        ("start_ns", "i8"),
        ("end_ns", "i8"),
        ("wait_ns", "i8"),
        ("downtime_ns", "i8"),
        ("sent_bytes", "i8"),
        ("rounds", "i8"),
        ("lost_ns", "i8"),
    ]
)
"""One operation of a `Schedule`."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """When each operation ran.

    Attributes
    ----------
    table : ndarray of `SCHEDULED`
        In the order given. `wait_ns` lies between submission and start; `downtime_ns` is the
        guest's, and 0 for operations other than migrations of running machines; `lost_ns` is
        guest time that SDPS took.
    end_ns : int
        When the last one ended.
    events : int
        Steps of the simulation.
    most_on_host, most_on_network, most_on_datastore : ndarray of int64
        The most that was in use of each budget.
    """

    table: npt.NDArray[Any] = field(repr=False)
    end_ns: int
    events: int
    most_on_host: Ints = field(repr=False)
    most_on_network: Ints = field(repr=False)
    most_on_datastore: Ints = field(repr=False)

    def __str__(self) -> str:
        if not len(self.table):
            return "nothing to do"
        return (
            f"{len(self.table):,} operations in {format_time(self.end_ns)}; "
            f"longest wait {format_time(int(self.table['wait_ns'].max()))}"
        )


def schedule_migrations(
    site: Site,
    kind: npt.ArrayLike,
    source: npt.ArrayLike,
    size_bytes: npt.ArrayLike,
    *,
    destination: npt.ArrayLike = -1,
    network: npt.ArrayLike = 0,
    datastore: npt.ArrayLike = -1,
    to_datastore: npt.ArrayLike = -1,
    submit_ns: npt.ArrayLike = 0,
    dirty_bytes_s: npt.ArrayLike = 0,
    working_set_bytes: npt.ArrayLike = 0,
    downtime_goal_ns: npt.ArrayLike = 500_000_000,
    max_rounds: npt.ArrayLike = 64,
    switch_over_ns: npt.ArrayLike = 0,
    sdps: bool = True,
    budgets: Budgets | None = None,
    order: Literal["fifo", "first_fit"] = "fifo",
) -> Schedule:
    """Run operations as budgets and links allow; columns have a value for each, or one for all.

    Parameters
    ----------
    site : Site
        Hosts, networks, datastores.
    kind : array_like of Kind
        What each is.
    source : array_like of int
        Host of the machine.
    size_bytes : array_like of int
        Memory, disks or both: what the first round sends.
    destination : array_like of int
        Host to which it goes; -1 where it stays.
    network : array_like of int
        Of vMotion and shared-nothing.
    datastore, to_datastore : array_like of int
        Where the disks are and where they go; -1: none. A vMotion uses the one where its disks
        are, or none.
    submit_ns : array_like of int
        When it is asked for.
    dirty_bytes_s, working_set_bytes : array_like of int
        How fast the guest writes what was sent, and to how much at most (0: to all): a
        constant rate per round, for lack of which one round is all. A rate is rounded down to
        whole bytes a millisecond.
    downtime_goal_ns, max_rounds : array_like of int
        The guest stops when what is left can be sent in that time at the present rate, after so
        many rounds, or after a round that left more than 9/10 and could not be helped by SDPS.
    switch_over_ns : array_like of int
        Fixed time at the end of each.
    sdps : bool, default True
        Whether guests of vMotions are slowed down after such a round, until they write half of
        what is sent, at the most to 1/100 of their speed (the defaults of `Precopy`).
    budgets : Budgets, optional
        By default the documented ones.
    order : {"fifo", "first_fit"}, default "fifo"
        Whether an operation may overtake one that was submitted earlier (at the same time: is
        in an earlier row) at a host, network or datastore for which that one waits.

    Returns
    -------
    Schedule

    Raises
    ------
    ClusterError
        An operation that could never start, with its row.
    InvalidValueError, InvalidTypeError
        Columns of another length, unknown hosts, networks or datastores, data without a link.

    Notes
    -----
    Links are shared max-min fair: at each start and end every operation gets the same as all
    others at its narrowest link, what some cannot use going to the others; rates are whole bytes
    a millisecond, rounded down. vMotion uses the sending and the receiving host's link and the
    network's trunk, storage vMotion and other operations what the datastores read and write,
    shared-nothing all of these. Times are whole nanoseconds, rounded up, and nothing is rounded
    besides, so the result is exact for this rule. Where one operation has more than 4.6 TB, data
    and rates are counted in units of 16 bytes, above 73 TB of 256.

    Examples
    --------
    Ten vMotions of 10 GB between two hosts with 10 Gbit/s: eight share the link for 64 s, then two.

    >>> from pyvirt.cluster import Kind, Site, schedule_migrations
    >>> plan = schedule_migrations(
    ...     Site([10_000, 10_000]), [Kind.VMOTION] * 10, 0, 10_000_000_000, destination=1
    ... )
    >>> (plan.table["end_ns"] / 1e9).tolist()
    [64.0, 64.0, 64.0, 64.0, 64.0, 64.0, 64.0, 64.0, 80.0, 80.0]
    """
    from pyvirt.cluster.kernels import budgets as kernels

    budgets = budgets or Budgets()
    if order not in ("fifo", "first_fit"):
        raise InvalidValueError(f"order must be 'fifo' or 'first_fit', got {order!r:.80}")
    given = (kind, source, size_bytes, destination, submit_ns)
    count = max((np.size(value) for value in given if np.ndim(value)), default=1)
    places = _Places.of(site, budgets)
    what = column(kind, "kind", count, 0, len(Kind) - 1)
    here = column(source, "source", count, 0, places.hosts - 1)
    there = column(destination, "destination", count, -1, places.hosts - 1)
    net = column(network, "network", count, 0, places.networks - 1)
    store = column(datastore, "datastore", count, -1, places.datastores - 1)
    to_store = column(to_datastore, "to_datastore", count, -1, places.datastores - 1)
    size = column(size_bytes, "size_bytes", count, 0, LARGEST_BYTES)
    needs, costs, links = _uses(places, budgets, what, here, there, net, store, to_store, size)
    submitted = column(submit_ns, "submit_ns", count, 0, LONGEST_NS)
    peak = np.zeros(places.limit.size, np.int64)
    largest = int(size.max(initial=0))
    grain = next(grain for grain in (1, 16, 256) if largest <= LARGEST_GRAINS * grain)
    grains = -(-size // grain)
    written = column(working_set_bytes, "working_set_bytes", count, 0, LARGEST_BYTES)
    columns = (
        submitted,
        needs,
        costs,
        links,
        grains * 10**6,
        column(dirty_bytes_s, "dirty_bytes_s", count, 0, 10**12) // 1000 // grain,
        np.where(written > 0, np.minimum(-(-written // grain), grains), grains) * 10**6,
        column(downtime_goal_ns, "downtime_goal_ns", count, 0, 60 * 10**9),
        column(max_rounds, "max_rounds", count, 1, 10**6),
        column(switch_over_ns, "switch_over_ns", count, 0, LONGEST_NS),
        (what == Kind.VMOTION) & sdps,
    )
    by_time = np.argsort(submitted, kind="stable")
    found = np.zeros((count, 6), np.int64)
    schedule: Any = kernels.schedule
    events = schedule(
        *(values[by_time] for values in columns),
        places.limit,
        places.hosts,
        np.maximum(places.capacity // grain, places.capacity > 0),
        order == "first_fit",
        found,
        peak,
    )
    out = np.empty_like(found)
    out[by_time] = found
    table = np.zeros(count, SCHEDULED)
    table["start_ns"], table["end_ns"] = out[:, 0], out[:, 1]
    table["wait_ns"] = out[:, 0] - submitted
    table["downtime_ns"] = np.where(what == Kind.OTHER, 0, out[:, 2])
    table["sent_bytes"] = out[:, 3] * grain
    table["rounds"], table["lost_ns"] = out[:, 4], out[:, 5]
    parts = np.split(peak, [places.hosts, places.hosts + places.networks])
    return Schedule(table, int(out[:, 1].max(initial=0)), int(events), *parts)


@dataclass(frozen=True, slots=True)
class _Places:
    """Budgets and links in one row each: hosts, networks, datastores."""

    hosts: int
    networks: int
    datastores: int
    limit: Ints
    capacity: Ints
    """Bytes a millisecond: hosts out, hosts in, trunks, reading, writing; 0: no limit."""

    @classmethod
    def of(cls, site: Site, budgets: Budgets) -> _Places:
        if not isinstance(site, Site):
            raise InvalidTypeError(f"site must be a Site, got {site!r:.80}")
        hosts, networks = np.size(site.host_mbps), np.size(site.network_mbps)
        datastores = max(np.size(site.read_mbps), np.size(site.write_mbps))
        if not networks:
            raise InvalidValueError("network_mbps must have at least one network")
        most = 10**6
        host = column(site.host_mbps, "host_mbps", hosts, 1, most)
        speed = column(site.network_mbps, "network_mbps", networks, 1, most)
        trunk = column(site.trunk_mbps, "trunk_mbps", networks, 0, most)
        read, write = (
            column(value if np.size(value) else 0, name, datastores, 0, most)
            for value, name in ((site.read_mbps, "read_mbps"), (site.write_mbps, "write_mbps"))
        )
        limit = np.concatenate(
            [
                np.full(hosts, budgets.host),
                np.where(speed >= 10_000, budgets.network_10g, budgets.network_1g),
                np.full(datastores, budgets.datastore),
            ]
        )
        capacity = np.concatenate([host, host, trunk, read, write]) * 125
        return cls(hosts, networks, datastores, limit, capacity)


def _uses(
    places: _Places,
    budgets: Budgets,
    kind: Ints,
    here: Ints,
    there: Ints,
    net: Ints,
    store: Ints,
    to_store: Ints,
    size: Ints,
) -> tuple[Ints, Ints, Ints]:
    """Find the budgets and the links of each operation, and refuse what cannot be."""
    moves = (kind == Kind.VMOTION) | (kind == Kind.SHARED_NOTHING)
    stays = kind == Kind.STORAGE

    def refuse(bad: npt.NDArray[np.bool_], text: str) -> None:
        if bad.any():
            row = int(np.argmax(bad))
            raise ClusterError(f"migrations row {row} ({Kind(kind[row]).name}): {text}", row=row)

    refuse(moves & (there < 0), "must have a destination")
    refuse(moves & (there == here), "must not go to the host where it is")
    refuse(stays & (there >= 0) & (there != here), "must stay on its host; see SHARED_NOTHING")
    disks = stays | (kind == Kind.SHARED_NOTHING)
    refuse(disks & ((store < 0) | (to_store < 0)), "must have a datastore and a to_datastore")
    refuse((store >= 0) & (store == to_store), "must go to another datastore")
    refuse((kind == Kind.VMOTION) & (to_store >= 0), "leaves its disks where they are")
    there = np.where(there == here, -1, there)
    h, n, d = places.hosts, places.networks, places.datastores
    needs = np.stack(
        [
            here,
            there,
            np.where(moves, h + net, -1),
            np.where(store >= 0, h + n + store, -1),
            np.where(to_store >= 0, h + n + to_store, -1),
        ],
        axis=1,
    )
    by_kind = [np.array(c) for c in (
        budgets.host_costs, budgets.host_costs, budgets.network_costs,
        budgets.datastore_costs, budgets.datastore_costs,
    )]  # fmt: skip
    costs = np.stack([cost[kind] for cost in by_kind], axis=1)
    needs[costs == 0] = -1
    over = (needs >= 0) & (costs > places.limit[needs])
    refuse(over.any(axis=1), "costs more than a budget allows at all")
    data = kind != Kind.VMOTION
    links = np.stack(
        [
            np.where(moves, here, -1),
            np.where(moves, h + there, -1),
            np.where(moves, 2 * h + net, -1),
            np.where(data & (store >= 0), 2 * h + n + store, -1),
            np.where(data & (to_store >= 0), 2 * h + n + d + to_store, -1),
        ],
        axis=1,
    )
    links[(links >= 0) & (places.capacity[links] == 0)] = -1
    refuse((size > 0) & (links < 0).all(axis=1), "sends data over nothing that has a speed")
    return needs, costs, links
