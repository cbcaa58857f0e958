"""Admission control: who may reserve how much, as vSphere decides it.

A pool's own reservation is charged to its parent at once, used or not. A child of a pool reserves
from what the pool has unreserved; what is missing is taken from the parent, and so on upwards, as
long as the pools on the way are expandable (vSphere Resource Management, "Expandable
Reservations"). What a pool has reserved in all never exceeds its limit: this rule is ours, since no
more could be delivered.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pyvirt.entitlement.pools import Client, Pool, _number
from pyvirt.errors import AdmissionError, InvalidTypeError, InvalidValueError

__all__ = ["Ledger", "admit"]

ROUNDING = 1e-12  # of the sums; reservations are often decimal fractions


@dataclass(slots=True)
class _Account:
    """A pool's own figures and what its children have reserved."""

    path: str
    parent: _Account | None
    reservation: float
    limit: float
    expandable: bool
    used: float = 0.0

    @property
    def unreserved(self) -> float:
        return max(0.0, self.reservation - self.used)


class Ledger:
    """The reservations of a tree of pools, as clients come and go.

    Parameters
    ----------
    tree : Pool
        The root; its pools are opened and its clients admitted, one after the other.
    capacity : float
        What the root pool reserves from.

    Raises
    ------
    AdmissionError
        Something in the tree cannot be admitted.

    Examples
    --------
    >>> from pyvirt.entitlement import Client, Ledger, Pool
    >>> ledger = Ledger(Pool("host", [Pool("test", reservation=1000, expandable=False)]), 4000)
    >>> ledger.reserve("host/test", 600)
    >>> ledger.unreserved("host/test"), ledger.available("host/test")
    (400.0, 400.0)
    >>> ledger.reserve("host/test", 600)
    Traceback (most recent call last):
        ...
    pyvirt.errors.AdmissionError: 'host/test' needs 600 and has 400: 200 is missing
    """

    def __init__(self, tree: Pool, capacity: float) -> None:
        if not isinstance(tree, Pool):
            raise InvalidTypeError(f"tree must be a Pool, not {tree!r:.80}")
        total = _number(capacity, "capacity", "the tree", finite=True)
        self._capacity = _Account("(capacity)", None, total, total, False)
        self._pools: dict[str, _Account] = {}
        for path, node, parent in _walk(tree):
            above = self._pools[parent] if parent else self._capacity
            if isinstance(node, Pool):
                _reserve(above, node.reservation, path)
                self._pools[path] = _Account(
                    path, above, node.reservation, node.limit, node.expandable
                )
            else:
                _reserve(above, node.reservation + node.overhead, path)

    def reserve(self, pool: str, amount: float) -> None:
        """Reserve in a pool, such as for a client that is powered on.

        Parameters
        ----------
        pool : str
            Its path.
        amount : float
            The client's reservation, with its overhead for memory.

        Raises
        ------
        AdmissionError
            There is not so much; nothing is changed.
        """
        _reserve(self._account(pool), _number(amount, "amount", "the reservation", finite=True), "")

    def release(self, pool: str, amount: float) -> None:
        """Give back what was reserved in a pool."""
        account: _Account | None = self._account(pool)
        left = _number(amount, "amount", "the reservation", finite=True)
        assert account is not None
        if left > account.used * (1 + ROUNDING):
            raise InvalidValueError(
                f"amount must be at most the {account.used:g} reserved in {pool!r}, got {left:g}"
            )
        while account is not None and left > 0:
            # What was taken beyond the pool's own reservation is the first to go back.
            before = max(account.used - account.reservation, 0.0)
            account.used = max(account.used - left, 0.0)
            left = before - max(account.used - account.reservation, 0.0)
            account = account.parent

    def used(self, pool: str) -> float:
        """Give what the children of a pool have reserved."""
        return self._account(pool).used

    def unreserved(self, pool: str) -> float:
        """Give what is left of a pool's own reservation."""
        return self._account(pool).unreserved

    def available(self, pool: str) -> float:
        """Give the largest reservation that a new child of a pool can have."""
        account = self._account(pool)
        way = [account]
        while account.parent is not None and account.expandable:
            account = account.parent
            way.append(account)
        most = 0.0
        for account in reversed(way):
            most = min(account.unreserved + most, account.limit - account.used)
        return max(most, 0.0)

    def pools(self) -> tuple[str, ...]:
        """Give the paths of all pools."""
        return tuple(self._pools)

    def _account(self, pool: str) -> _Account:
        if pool not in self._pools:
            some = ", ".join(list(self._pools)[:8])
            raise InvalidValueError(f"no pool has the path {pool!r:.80}; there are {some}")
        return self._pools[pool]


def admit(tree: Pool, capacity: float, *, client: Client | None = None, pool: str = "") -> Ledger:
    """Check that a tree can be admitted, and one more client if there is one.

    Parameters
    ----------
    tree : Pool
        The root pool, with the clients that are powered on.
    capacity : float
        What there is to reserve from.
    client : Client, optional
        Who comes in addition.
    pool : str, optional
        The path of the pool that it comes to; by default the root.

    Returns
    -------
    Ledger
        The reservations, with the new client's.

    Raises
    ------
    AdmissionError
        What is missing, and in which pool.
    """
    ledger = Ledger(tree, capacity)
    if client is not None:
        if not isinstance(client, Client):
            raise InvalidTypeError(f"client must be a Client, not {client!r:.80}")
        account = ledger._account(pool or tree.name)
        _reserve(account, client.reservation + client.overhead, f"{account.path}/{client.name}")
    return ledger


def _walk(tree: Pool) -> Iterator[tuple[str, Pool | Client, str]]:
    """Give path, node and path of the parent; pools before what is in them."""
    waiting: list[tuple[Pool | Client, str]] = [(tree, "")]
    for node, parent in waiting:
        path = f"{parent}/{node.name}" if parent else node.name
        yield path, node, parent
        if isinstance(node, Pool):
            waiting += [(child, path) for child in node.children]


def _reserve(account: _Account, amount: float, whose: str) -> None:
    """Charge an account and, for what it lacks, those above; all or nothing."""
    charges: list[tuple[_Account, float]] = []
    place: Any = account
    need = amount
    while need > 0:
        charges.append((place, need))
        slack = ROUNDING * (place.used + need)
        if place.used + need > place.limit + slack:
            raise AdmissionError(place.path, need, max(place.limit - place.used, 0.0), whose)
        missing = need - place.unreserved
        if missing <= slack:
            break
        if not place.expandable:
            raise AdmissionError(place.path, need, place.unreserved, whose)
        need = missing
        place = place.parent
    for place, need in charges:
        place.used += need
