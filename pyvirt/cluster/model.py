"""A cluster as arrays: hosts, VMs, pools and rules, checked against each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pyvirt.cluster.columns import ClusterError
from pyvirt.cluster.entitle import PoolOrder, entitlement
from pyvirt.cluster.tables import (
    MEMORY,
    NONE,
    PAGE,
    Hosts,
    HostState,
    Pools,
    Rules,
    VMs,
)
from pyvirt.errors import InvalidTypeError, InvalidValueError

if TYPE_CHECKING:
    from pyvirt.cluster.dpm import DPMOptions, PowerPlan
    from pyvirt.cluster.drs import Balancing
    from pyvirt.cluster.ha_whatif import Failures
    from pyvirt.cluster.history import DemandHistory
    from pyvirt.spec import ClusterSpec

__all__ = ["Cluster"]

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

# Amounts in a user's table: the row of the resource, and the factor to our unit.
_AMOUNTS = {"cpu_mhz": (0, 1000.0), "memory_bytes": (1, 1 / PAGE)}


class Cluster:
    """Hosts, virtual machines, resource pools and rules, as arrays that kernels work on.

    The arrays are the cluster's state and may be changed in place; `validate` checks them again.

    Parameters
    ----------
    hosts : Hosts
        What VMs run on.
    vms : VMs
        Where they are, what they want, what they are promised.
    pools : Pools, optional
        The tree below the cluster; by default all VMs are the cluster's own children.
    rules : Rules, optional
        Affinity.
    power_tables : array_like of float, shape (K, 11), optional
        Watts at 0, 10, ... 100 % of a host's CPU; `Hosts.power` names rows. By default one row of
        zeros: no power is counted.
    name : str, default "cluster"
        For messages and reports.

    Attributes
    ----------
    hosts, vms, pools, rules, power_tables, name
        As given; tables and arrays are not copied.

    Raises
    ------
    ClusterError
        A table names a row that another table does not have, or a VM is on twice.
    InvalidTypeError
        Something is no table.

    Examples
    --------
    Two hosts of 10 GHz and 64 GiB, three VMs, of which one has a reservation:

    >>> from pyvirt.cluster import Cluster
    >>> cluster = Cluster.from_tables(
    ...     hosts={"cpu_mhz": [10_000, 10_000], "memory_bytes": [64 << 30, 64 << 30]},
    ...     vms={
    ...         "name": ["web", "db", "mail"],
    ...         "host": [0, 0, 1],
    ...         "memory_bytes": [8 << 30, 16 << 30, 8 << 30],
    ...         "demand_cpu_mhz": [4000, 5000, 1000],
    ...         "reservation_cpu_mhz": [0, 2000, 0],
    ...     },
    ... )
    >>> cluster.load()[0].tolist()
    [9000000, 1000000]
    >>> cluster.entitlement()[0].tolist()
    [4000000, 5000000, 1000000]
    """

    def __init__(
        self,
        hosts: Hosts,
        vms: VMs,
        pools: Pools | None = None,
        rules: Rules | None = None,
        *,
        power_tables: npt.ArrayLike | None = None,
        name: str = "cluster",
    ) -> None:
        self.name = name
        self.hosts = hosts
        self.vms = vms
        self.pools = Pools(0) if pools is None else pools
        self.rules = Rules(0, kind=[]) if rules is None else rules
        table = np.zeros((1, 11)) if power_tables is None else power_tables
        try:
            self.power_tables = np.ascontiguousarray(table, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise InvalidTypeError(f"power_tables must be numbers, not {table!r:.80}") from error
        self.validate()

    @classmethod
    def from_arrays(
        cls,
        hosts: Mapping[str, Any],
        vms: Mapping[str, Any],
        pools: Mapping[str, Any] | None = None,
        rules: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Cluster:
        """Make a cluster from columns in the units of `Hosts`, `VMs`, `Pools` and `Rules`.

        Parameters
        ----------
        hosts, vms, pools, rules : mapping
            Columns by name; `name` may be left out, then rows are numbered.
        **options
            `power_tables` and `name` of the cluster.

        Returns
        -------
        Cluster
        """
        made: list[Any] = []
        for kind, columns in ((Hosts, hosts), (VMs, vms), (Pools, pools), (Rules, rules)):
            if columns is None:
                made.append(None)
                continue
            fields = dict(columns)
            names = fields.pop("name", None)
            made.append(kind(_rows(kind.TABLE, fields) if names is None else names, **fields))
        return cls(*made, **options)

    @classmethod
    def from_tables(
        cls,
        hosts: Any,
        vms: Any,
        pools: Any = None,
        rules: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Cluster:
        """Make a cluster from tables in users' units: mappings of columns, or data frames.

        Parameters
        ----------
        hosts, vms, pools : mapping, or pandas or polars data frame
            Columns as those of `Hosts`, `VMs` and `Pools`, but amounts stand in columns of their
            own: ``cpu_mhz`` and ``memory_bytes`` of hosts are their capacity, ``memory_bytes`` of
            VMs is their configured memory, and with the prefixes ``demand_``, ``reservation_``,
            ``limit_`` (negative: none) and ``shares_`` they are the rows of those arrays
            (``shares_cpu``, ``shares_memory``). `core_mhz` and `memory_bytes` likewise. ``host``
            and ``pool`` of VMs and ``parent`` of pools may be names.
        rules : mapping, optional
            As for `from_arrays`; its VMs and hosts may be names.
        **options
            `power_tables` and `name` of the cluster.

        Returns
        -------
        Cluster
        """
        host_columns = _columns(hosts, Hosts)
        pool_columns = None if pools is None else _columns(pools, Pools)
        vm_columns = _columns(vms, VMs)
        host_names = _index(host_columns)
        pool_names = _index(pool_columns)
        _number(vm_columns, "host", host_names, "vms")
        _number(vm_columns, "pool", pool_names, "vms")
        if pool_columns is not None:
            _number(pool_columns, "parent", pool_names, "pools")
        if rules is not None:
            fields = dict(rules)
            for key, names in (("vms", _index(vm_columns)), ("hosts", host_names)):
                if key in fields:
                    fields[key] = [
                        [_row(one, names, f"rules row {row}: {key}") for one in rows]
                        for row, rows in enumerate(fields[key])
                    ]
            rules = fields
        return cls.from_arrays(host_columns, vm_columns, pool_columns, rules, **options)

    @classmethod
    def from_spec(cls, spec: ClusterSpec) -> Cluster:
        """Make a cluster from a description.

        Parameters
        ----------
        spec : pyvirt.spec.ClusterSpec
            Demand for memory is estimated by `memory_demand` from what is active and consumed.

        Returns
        -------
        Cluster
        """
        from pyvirt.cluster.described import from_spec

        return cls(**from_spec(spec))

    def __repr__(self) -> str:
        return (
            f"<Cluster {self.name!r}: {len(self.hosts)} hosts, {len(self.vms)} VMs, "
            f"{len(self.pools)} pools, {len(self.rules)} rules>"
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Cluster):
            return NotImplemented
        parts = ("name", "hosts", "vms", "pools", "rules")
        return all(getattr(self, part) == getattr(other, part) for part in parts) and bool(
            np.array_equal(self.power_tables, other.power_tables)
        )

    __hash__ = None  # type: ignore[assignment]

    def copy(self) -> Cluster:
        """Give an independent cluster with the same state."""
        return Cluster(
            self.hosts.copy(),
            self.vms.copy(),
            self.pools.copy(),
            self.rules.copy(),
            power_tables=self.power_tables.copy(),
            name=self.name,
        )

    def validate(self) -> None:
        """Check all tables, and that what one names the other has.

        Raises
        ------
        ClusterError
            With the table, the row and its name.
        """
        for table, kind in (
            (self.hosts, Hosts),
            (self.vms, VMs),
            (self.pools, Pools),
            (self.rules, Rules),
        ):
            if not isinstance(table, kind):
                raise InvalidTypeError(f"{kind.TABLE} must be {kind.__name__}, not {table!r:.80}")
            table.check()
        hosts, vms, pools, rules = self.hosts, self.vms, self.pools, self.rules
        shape = self.power_tables.shape
        if len(shape) != 2 or shape[1] != 11 or shape[0] < 1:
            raise InvalidTypeError(f"power_tables must have shape (K, 11), not {shape}")
        watts = self.power_tables
        if not (np.isfinite(watts).all() and (watts >= 0).all()):
            bad = watts[~(np.isfinite(watts) & (watts >= 0))][0]
            raise InvalidValueError(f"power_tables must be finite and not negative, got {bad}")
        hosts.refuse(hosts.power >= shape[0], "power", f"must be a row of {shape[0]} power tables")
        vms.refuse(vms.host >= len(hosts), "host", f"must be one of {len(hosts)} hosts")
        vms.refuse(vms.pool >= len(pools), "pool", f"must be one of {len(pools)} pools")
        for key in ("datastores", "networks"):
            ours, theirs = getattr(vms, key), getattr(hosts, key)
            if ours.shape[1] > theirs.shape[1]:
                vms.refuse(
                    (ours[:, theirs.shape[1] :] != 0).any(axis=1), key, "names what no host reaches"
                )
        lost = (vms.on == 1) & (vms.host != NONE)
        lost[lost] = hosts.state[vms.host[lost]] == HostState.STANDBY
        vms.refuse(lost, "host", "must not be in standby while the VM is on")
        for key, limit in (("vm", len(vms)), ("host", len(hosts))):
            flat, start = getattr(rules, key), getattr(rules, f"{key}_start")
            bad_at = np.flatnonzero((flat < 0) | (flat >= limit))
            if bad_at.size:
                row = int(np.searchsorted(start, bad_at[0], side="right")) - 1
                raise ClusterError(
                    f"{rules.where(row)}: {key} {flat[bad_at[0]]} is not one of {limit}",
                    "rules",
                    row,
                )

    def load(self) -> Ints:
        """Sum up the demand of the VMs that are on, for each host.

        Returns
        -------
        ndarray of int64, shape (2, H)
            kHz and pages; a VM's overhead is part of its memory.
        """
        demand = self.vms.demand.copy()
        demand[MEMORY] += self.vms.overhead
        return self.sum_on_hosts(demand)

    def sum_on_hosts(self, amounts: Ints) -> Ints:
        """Sum up amounts of VMs that are on and have a host, shape (2, V) to (2, H)."""
        placed = np.flatnonzero((self.vms.on == 1) & (self.vms.host != NONE))
        where = self.vms.host[placed]
        count = len(self.hosts)
        # Exact: each amount and each sum is a whole number below 2**53.
        return np.stack(
            [np.bincount(where, weights=row[placed], minlength=count) for row in amounts]
        ).astype(np.int64)

    def vms_on(self, host: int) -> Ints:
        """Give the VMs that are on and run on a host, in ascending order."""
        if not 0 <= host < len(self.hosts):
            raise InvalidValueError(f"host must be one of {len(self.hosts)}, got {host}")
        return np.flatnonzero((self.vms.host == host) & (self.vms.on == 1))

    def entitlement(self, *, static: bool = False, order: PoolOrder | None = None) -> Ints:
        """Divide the cluster's capacity among its VMs; see `pyvirt.cluster.entitle.entitlement`.

        Parameters
        ----------
        static : bool, default False
            Whether demands are left out of account.
        order : PoolOrder, optional
            Where the same cluster is asked often.

        Returns
        -------
        ndarray of int64, shape (2, V)
            kHz and pages.
        """
        return entitlement(self, static=static, order=order)

    def drs(self, level: int = 3, **options: Any) -> Balancing:
        """Recommend migrations that balance load; see `pyvirt.cluster.drs`."""
        from pyvirt.cluster.drs import drs

        return drs(self, level=level, **options)

    def normalised(self, entitlement: Ints | None = None) -> Floats:
        """Give the sum of entitlements on each host over its capacity.

        Parameters
        ----------
        entitlement : ndarray of int64, shape (2, V), optional
            By default `entitlement()`.

        Returns
        -------
        ndarray of float64, shape (2, H)
            0 for hosts that are not on or have no capacity.
        """
        amounts = self.entitlement() if entitlement is None else entitlement
        sums = self.sum_on_hosts(amounts).astype(np.float64)
        usable = (self.hosts.state == HostState.ON) & (self.hosts.capacity > 0)
        return np.divide(sums, self.hosts.capacity, out=np.zeros_like(sums), where=usable)

    def dpm(self, history: DemandHistory, options: DPMOptions | None = None) -> PowerPlan:
        """Recommend which hosts to power on and off; see `pyvirt.cluster.dpm`."""
        from pyvirt.cluster.dpm import dpm

        return dpm(self, history, options)

    def ha(self, failures: int = 1, **options: Any) -> Failures:
        """Try failures of hosts; see `pyvirt.cluster.what_if`."""
        from pyvirt.cluster.ha_whatif import what_if

        return what_if(self, failures, **options)


def _rows(table: str, fields: Mapping[str, Any]) -> int:
    """Find how many rows the columns have."""
    for key, value in fields.items():
        shape: tuple[int, ...] = np.shape(value) if key not in ("vms", "hosts") else (len(value),)
        if len(shape) == 1:
            return shape[0]
        if len(shape) == 2:
            return shape[0] if key in ("datastores", "networks") else shape[1]
    raise InvalidTypeError(f"{table} must have a column of names, or one of numbers")


def _columns(table: Any, kind: type[Hosts | VMs | Pools]) -> dict[str, Any]:
    """Turn a user's table into columns in our units."""
    keys = table.keys() if isinstance(table, Mapping) else getattr(table, "columns", None)
    if keys is None:
        raise InvalidTypeError(f"{kind.TABLE} must be a mapping or a data frame, not {table!r:.80}")
    raw = {str(key): table[key] for key in keys}
    made: dict[str, Any] = {}
    pairs: dict[str, dict[int, Any]] = {}
    for key, value in raw.items():
        target, row, factor = _target(key, kind)
        if key == "name":
            made["name"] = [str(one) for one in value]
        elif target is None:
            made[key] = value
        else:
            amount = _amount(value, factor, f"{key} of {kind.TABLE}")
            if row < 0:
                made[target] = amount
            else:
                pairs.setdefault(target, {})[row] = amount
    for target, rows in pairs.items():
        length = max(np.size(value) for value in rows.values())
        fill = {"limit": -1, "shares": -1}.get(target, 0)
        made[target] = np.stack([rows.get(row, np.full(length, fill)) for row in (0, 1)])
    return made


def _target(key: str, kind: type[Hosts | VMs | Pools]) -> tuple[str | None, int, float]:
    """Find the column, the row and the factor that a user's column stands for."""
    if key == "core_mhz" and kind is Hosts:
        return "core_khz", -1, 1000.0
    if kind is VMs and key == "memory_bytes":
        return "memory", -1, 1 / PAGE
    if kind is VMs and key in ("overhead_bytes", "active_bytes", "consumed_bytes"):
        return key.removesuffix("_bytes"), -1, 1 / PAGE
    if kind is VMs and key == "working_set_bytes":
        return "working_set", -1, 1 / PAGE
    if kind is not Hosts and key in ("shares_cpu", "shares_memory"):
        return "shares", int(key == "shares_memory"), 1.0
    for prefix in ("",) if kind is Hosts else ("demand_", "reservation_", "limit_"):
        amount = _AMOUNTS.get(key.removeprefix(prefix)) if key.startswith(prefix) else None
        if amount is not None:
            return prefix.removesuffix("_") or "capacity", *amount
    return None, -1, 1.0


def _amount(value: Any, factor: float, what: str) -> Ints:
    try:
        numbers = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidTypeError(f"{what} must be numbers, not {value!r:.80}") from error
    if not np.isfinite(numbers).all():
        row = int(np.argmin(np.isfinite(numbers)))
        raise ClusterError(f"{what}, row {row}: must be finite, got {numbers.flat[row]}", row=row)
    # A negative limit is none; rounding must not turn it, or another negative number, into zero.
    return np.where(numbers < 0, -1, np.rint(numbers * factor)).astype(np.int64)


def _index(columns: Mapping[str, Any] | None) -> dict[str, int]:
    names = (columns or {}).get("name", ())
    return {str(name): row for row, name in enumerate(names)}


def _row(one: Any, names: Mapping[str, int], what: str) -> int:
    if isinstance(one, str):
        if one not in names:
            raise ClusterError(f"{what} {one!r:.80} is not known")
        return names[one]
    return int(one)


def _number(columns: dict[str, Any], key: str, names: Mapping[str, int], table: str) -> None:
    """Replace names of rows by their numbers; nothing, or an empty name, is `NONE`."""
    if key not in columns:
        return
    try:
        values = list(columns[key])
    except TypeError as error:
        raise InvalidTypeError(f"{key} of {table} must be a list, not {columns[key]!r}") from error
    columns[key] = [
        NONE if one is None or one == "" else _row(one, names, f"{table} row {row}: {key}")
        for row, one in enumerate(values)
    ]
