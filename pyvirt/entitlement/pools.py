"""The tree of pools and clients as data, and what levels of shares are worth."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal

from pyvirt.errors import InvalidTypeError, InvalidValueError

__all__ = ["Client", "Pool", "Resource", "Shares", "check_resource", "shares_of"]

Resource = Literal["cpu", "memory"]

#: A pool with a level of shares counts as a VM of 4 vCPUs and 16 GB (vSphere Resource Management).
POOL_SIZE = {"cpu": 4.0, "memory": 16384.0}
LEAST_SHARES, MOST_SHARES = 1e-12, 1e15


class Shares(Enum):
    """The levels of shares that vSphere names; each is twice the one before.

    A level is worth 500, 1000 or 2000 shares a vCPU, and 5, 10 or 20 a MB of configured memory
    (vSphere Resource Management, "Resource Allocation Shares").
    """

    LOW = "low"
    NORMAL = "normal"
    HIGH = "high"

    def number(self, resource: Resource, size: float) -> float:
        """Give the number of shares.

        Parameters
        ----------
        resource : {"cpu", "memory"}
            What is divided.
        size : float
            Number of vCPUs, or configured MB of memory.

        Returns
        -------
        float

        Examples
        --------
        >>> pv.Shares.NORMAL.number("cpu", 2), pv.Shares.NORMAL.number("memory", 1024)
        (2000.0, 10240.0)
        """
        each = {"cpu": 500.0, "memory": 5.0}[check_resource(resource)]
        times = {Shares.LOW: 1, Shares.NORMAL: 2, Shares.HIGH: 4}[self]
        return each * times * _number(size, "size", "shares", finite=True)


@dataclass(frozen=True, slots=True)
class Client:
    """What competes for a resource within a pool: a VM, or one of its vCPUs.

    Amounts are in the unit of the capacity that is divided, such as MHz or bytes.

    Attributes
    ----------
    name : str
        Unique among its siblings, without a slash.
    shares : float or Shares, default Shares.NORMAL
        0, or 1e-12 to 1e15. A client without shares gets more than its floor only when all its
        siblings that have shares are at their caps.
    reservation : float, default 0
        What admission control sets aside for it.
    limit : float, default infinite
        What it never gets more than; at least the reservation.
    demand : float, default infinite
        What it could use now.
    touched : float, optional
        Which part of the reservation is kept for it whatever it demands. None: as much as it
        demands, as for CPU time, which can be taken back at any moment. For memory, all that it
        ever touched. Infinite: all of the reservation, as DRS counts it.
    overhead : float, default 0
        What admission control charges beside the reservation, for memory.
    size : float, default 1
        vCPUs, or MB of memory, that a level of shares is multiplied by.
    """

    name: str
    shares: float | Shares = Shares.NORMAL
    reservation: float = 0.0
    limit: float = math.inf
    demand: float = math.inf
    touched: float | None = None
    overhead: float = 0.0
    size: float = 1.0

    def __post_init__(self) -> None:
        _check_common(self, "client")
        _number(self.demand, "demand", f"client {self.name!r}")
        if self.touched is not None:
            _number(self.touched, "touched", f"client {self.name!r}")
        _number(self.overhead, "overhead", f"client {self.name!r}", finite=True)
        if not _number(self.size, "size", f"client {self.name!r}", finite=True) > 0:
            raise InvalidValueError(f"size of client {self.name!r} must be positive, got 0")


@dataclass(frozen=True, slots=True)
class Pool:
    """A resource pool: clients and pools that divide what it gets.

    Attributes
    ----------
    name : str
        Unique among its siblings, without a slash.
    children : iterable of Pool or Client
        Kept as a tuple.
    shares : float or Shares, default Shares.NORMAL
        Against its siblings. A level counts as that of a VM with 4 vCPUs and 16 GB.
    reservation : float, default 0
        Set aside in its parent whether its children use it or not.
    limit : float, default infinite
        What its children together never get more than; at least the reservation.
    expandable : bool, default True
        Whether reservations of its children may exceed its own, at its parent's cost.
    """

    name: str
    children: Sequence[Pool | Client] = ()
    shares: float | Shares = Shares.NORMAL
    reservation: float = 0.0
    limit: float = math.inf
    expandable: bool = True

    def __post_init__(self) -> None:
        _check_common(self, "pool")
        if not isinstance(self.expandable, bool):
            raise InvalidTypeError(
                f"expandable of pool {self.name!r} must be a bool, not {self.expandable!r:.80}"
            )
        children = _children(self.children, self.name)
        object.__setattr__(self, "children", children)
        seen: set[str] = set()
        for child in children:
            if child.name in seen:
                raise InvalidValueError(
                    f"names within pool {self.name!r} must differ, two are {child.name!r}"
                )
            seen.add(child.name)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Pool:
        """Make a tree from nested mappings, such as a TOML file holds.

        Parameters
        ----------
        data : mapping
            The fields of a pool; each of its `children` is such a mapping, of a pool where it
            has `children`, else of a client. `shares` may be ``"low"``, ``"normal"``, ``"high"``.

        Returns
        -------
        Pool
        """
        made = _from_dict(data, True)
        assert isinstance(made, Pool)
        return made


def check_resource(resource: str) -> Resource:
    """Refuse what is neither cpu nor memory."""
    if resource not in POOL_SIZE:
        raise InvalidValueError(f'resource must be "cpu" or "memory", got {resource!r:.80}')
    return resource  # type: ignore[return-value]


def shares_of(node: Pool | Client, resource: Resource) -> float:
    """Give the number of shares of a node."""
    if not isinstance(node.shares, Shares):
        return float(node.shares)
    size = POOL_SIZE[resource] if isinstance(node, Pool) else node.size
    return node.shares.number(resource, size)


def _number(value: Any, name: str, whose: str, *, finite: bool = False) -> float:
    """Check a number that must not be negative; a bool or a text is none."""
    if isinstance(value, (bool, str)) or not hasattr(value, "__float__"):
        raise InvalidTypeError(f"{name} of {whose} must be a number, not {value!r:.80}")
    number = float(value)
    if not number >= 0 or (finite and math.isinf(number)):
        accepted = "finite and not negative" if finite else "a number that is not negative"
        raise InvalidValueError(f"{name} of {whose} must be {accepted}, got {value!r:.80}")
    return number


def _check_common(node: Pool | Client, kind: str) -> None:
    name = node.name
    if not isinstance(name, str):
        raise InvalidTypeError(f"name of a {kind} must be a string, not {name!r:.80}")
    if not name or "/" in name:
        raise InvalidValueError(
            f"name of a {kind} must not be empty and have no slash, got {name!r:.80}"
        )
    whose = f"{kind} {name!r}"
    if not isinstance(node.shares, Shares):
        shares = _number(node.shares, "shares", whose)
        if shares and not LEAST_SHARES <= shares <= MOST_SHARES:
            raise InvalidValueError(
                f"shares of {whose} must be 0 or in [{LEAST_SHARES:g}, {MOST_SHARES:g}], "
                f"got {shares:g}"
            )
    reservation = _number(node.reservation, "reservation", whose, finite=True)
    limit = _number(node.limit, "limit", whose)
    if reservation > limit:
        raise InvalidValueError(
            f"reservation of {whose} must not exceed its limit, got {reservation:g} > {limit:g}"
        )


def _children(children: Any, name: str) -> tuple[Pool | Client, ...]:
    if not isinstance(children, Iterable) or isinstance(children, (str, Mapping)):
        raise InvalidTypeError(
            f"children of pool {name!r} must be pools and clients, not {children!r:.80}"
        )
    result = tuple(children)
    for child in result:
        if not isinstance(child, (Pool, Client)):
            raise InvalidTypeError(
                f"children of pool {name!r} must be pools and clients, not {child!r:.80}"
            )
    return result


def _from_dict(data: Any, is_pool: bool) -> Pool | Client:
    if not isinstance(data, Mapping):
        raise InvalidTypeError(f"a pool or client must be a table of fields, not {data!r:.80}")
    kind = Pool if is_pool else Client
    fields = dict(data)
    unknown = sorted(set(fields) - set(kind.__dataclass_fields__))
    who = f"{kind.__name__.lower()} {fields.get('name', '(without a name)')!r:.80}"
    if unknown:
        known = ", ".join(kind.__dataclass_fields__)
        raise InvalidValueError(f"{who} has no field {unknown[0]!r:.80}; there are {known}")
    if "name" not in fields:
        raise InvalidValueError(f"each {kind.__name__.lower()} must have a name, got {data!r:.80}")
    if isinstance(fields.get("shares"), str):
        try:
            fields["shares"] = Shares(fields["shares"].lower())
        except ValueError:
            raise InvalidValueError(
                f'shares of {who} must be a number, "low", "normal" or "high", '
                f"got {fields['shares']!r:.80}"
            ) from None
    if is_pool:
        children = fields.get("children", ())
        if not isinstance(children, (list, tuple)):
            raise InvalidTypeError(f"children of {who} must be a list, not {children!r:.80}")
        fields["children"] = tuple(
            _from_dict(child, isinstance(child, Mapping) and "children" in child)
            for child in children
        )
    return kind(**fields)
