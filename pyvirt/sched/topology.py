"""The shape of a host: which CPUs share a core, a last-level cache, a NUMA node, a socket."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from numbers import Real
from operator import index
from typing import Any

import numpy as np
import numpy.typing as npt

from pyvirt.errors import InvalidTypeError, InvalidValueError

__all__ = ["Topology"]

MOST_CPUS = 1024
MOST_COST = 1 << 40
LEVELS = ("core", "llc", "node", "socket")
_NAMES = {"core": "core", "llc": "LLC", "node": "NUMA node", "socket": "socket"}


class Topology:
    """Sockets of NUMA nodes of last-level caches (LLC) of cores of threads; a CPU is a thread.

    Parameters
    ----------
    sockets : int, default 1
        Of the host.
    nodes_per_socket : int, default 1
        NUMA nodes of each socket.
    cores : int, default 1
        Of each socket; nodes and caches get equal parts.
    threads : int, default 1
        Of each core.
    llcs_per_node : int, default 1
        Last-level caches of each NUMA node.
    smt : float or sequence of float, default 1.25
        What the busy threads of a core do together, of what one alone does: of two of them, or of
        two, three and so on; of more as many as the last. 1.25 is a usual figure, not a measured
        one: two busy threads run at 0.625 each. Kept in 2**-16, rounded down.
    migration_ns : sequence of int, optional
        What a world loses when it comes to run on another CPU than before: time that it runs
        without getting on. Five numbers: on another thread of the same core, on another core
        beside the same last-level cache, in the same NUMA node, on the same socket, elsewhere.
        Default: nothing.

    Raises
    ------
    InvalidValueError, InvalidTypeError
        For a shape that cannot be; the message has the numbers.

    Notes
    -----
    The threads of a core have neighbouring numbers, as on ESXi; cores, caches, nodes and sockets
    follow each other. For any other numbering see `from_numbers`.

    Examples
    --------
    >>> from pyvirt.sched import Topology
    >>> host = Topology(sockets=2, cores=4, threads=2)
    >>> host.cpus
    16
    >>> [host.distance(0, cpu) for cpu in (0, 1, 2, 8)]
    [0, 1, 2, 5]
    >>> host.members("core", 3)
    (6, 7)
    """

    __slots__ = ("core", "llc", "migration_ns", "node", "smt", "socket")

    core: tuple[int, ...]
    """The core of each CPU; like the other numbers dense, from 0."""
    llc: tuple[int, ...]
    """The last-level cache of each CPU."""
    node: tuple[int, ...]
    """The NUMA node of each CPU."""
    socket: tuple[int, ...]
    """The socket of each CPU."""
    smt: tuple[float, ...]
    """What two and more busy threads of a core do together, of what one alone does."""
    migration_ns: tuple[int, ...]
    """What moves cost, by distance, from 1 to 5."""

    def __init__(
        self,
        *,
        sockets: int = 1,
        nodes_per_socket: int = 1,
        cores: int = 1,
        threads: int = 1,
        llcs_per_node: int = 1,
        smt: float | Sequence[float] = 1.25,
        migration_ns: Sequence[int] | None = None,
    ) -> None:
        sockets = _count(sockets, "sockets")
        nodes = _count(nodes_per_socket, "nodes_per_socket")
        cores = _count(cores, "cores")
        threads = _count(threads, "threads")
        llcs = _count(llcs_per_node, "llcs_per_node")
        if cores % nodes:
            raise InvalidValueError(
                f"the cores of a socket, {cores}, are no multiple of its {nodes} NUMA nodes"
            )
        if cores // nodes % llcs:
            raise InvalidValueError(
                f"the cores of a NUMA node, {cores // nodes}, are no multiple of its {llcs} LLCs"
            )
        cpus = sockets * cores * threads
        if cpus > MOST_CPUS:
            raise InvalidValueError(
                f"{sockets} sockets of {cores} cores of {threads} threads are {cpus:,} CPUs; "
                f"a host has at most {MOST_CPUS:,}"
            )
        core = np.arange(cpus) // threads
        per_node = cores // nodes
        numbers = [core, core // (per_node // llcs), core // per_node, core // cores]
        self._set(numbers, smt, migration_ns)

    @classmethod
    def from_numbers(
        cls,
        *,
        core: Iterable[int],
        llc: Iterable[int] | None = None,
        node: Iterable[int] | None = None,
        socket: Iterable[int] | None = None,
        smt: float | Sequence[float] = 1.25,
        migration_ns: Sequence[int] | None = None,
    ) -> Topology:
        """Make a topology of any shape from the numbers that each CPU has.

        Parameters
        ----------
        core : iterable of int
            Of each CPU, any numbers from 0: they are made dense in their order.
        llc, node, socket : iterable of int, optional
            The same; default: one for all CPUs.
        smt, migration_ns
            See `Topology`.

        Raises
        ------
        InvalidValueError, InvalidTypeError
            A core in two caches, a cache in two nodes or a node in two sockets; lists of
            different lengths; no CPU or more than 1,024. A cache that several nodes share is to
            be given as one for each of them.

        Examples
        --------
        Linux often numbers the second threads of all cores after the first ones:

        >>> Topology.from_numbers(core=[0, 1, 2, 3, 0, 1, 2, 3]).members("core", 1)
        (1, 5)
        """
        given = {"core": core, "llc": llc, "node": node, "socket": socket}
        numbers = [_numbers(given["core"], "core")]
        cpus = len(numbers[0])
        if not 1 <= cpus <= MOST_CPUS:
            raise InvalidValueError(
                f"a host has 1 to {MOST_CPUS:,} CPUs, core has {cpus:,} numbers"
            )
        for name in LEVELS[1:]:
            values = given[name]
            each = np.zeros(cpus, np.int64) if values is None else _numbers(values, name)
            if len(each) != cpus:
                raise InvalidValueError(f"{name} has {len(each)} numbers and core {cpus}")
            numbers.append(each)
        for (inner, a), (outer, b) in zip(
            zip(LEVELS, numbers, strict=True),
            list(zip(LEVELS, numbers, strict=True))[1:],
            strict=False,
        ):
            first: dict[int, int] = {}
            for cpu, number in enumerate(a.tolist()):
                other = first.setdefault(number, cpu)
                if b[other] != b[cpu]:
                    raise InvalidValueError(
                        f"{_NAMES[inner]} {number} is in {_NAMES[outer]} {b[other]} (CPU {other}) "
                        f"and in {_NAMES[outer]} {b[cpu]} (CPU {cpu})"
                    )
        made = cls.__new__(cls)
        dense = [np.unique(each, return_inverse=True)[1] for each in numbers]
        made._set(dense, smt, migration_ns)
        return made

    def _set(self, numbers: list[npt.NDArray[np.int64]], smt: Any, migration_ns: Any) -> None:
        for name, each in zip(LEVELS, numbers, strict=True):
            object.__setattr__(self, name, tuple(each.tolist()))
        object.__setattr__(self, "smt", _totals(smt, self.threads))
        object.__setattr__(self, "migration_ns", _costs(migration_ns))

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError("a topology does not change; make another")

    @property
    def cpus(self) -> int:
        """Number of CPUs: threads of all cores."""
        return len(self.core)

    @property
    def cores(self) -> int:
        """Number of cores."""
        return max(self.core) + 1

    @property
    def llcs(self) -> int:
        """Number of last-level caches."""
        return max(self.llc) + 1

    @property
    def nodes(self) -> int:
        """Number of NUMA nodes."""
        return max(self.node) + 1

    @property
    def sockets(self) -> int:
        """Number of sockets."""
        return max(self.socket) + 1

    @property
    def threads(self) -> int:
        """Of the core with the most."""
        return int(np.bincount(self.core).max())

    def members(self, level: str, number: int) -> tuple[int, ...]:
        """Give the CPUs of one part of the host.

        Parameters
        ----------
        level : {"core", "llc", "node", "socket"}
            What.
        number : int
            Which.
        """
        if level not in LEVELS:
            raise InvalidValueError(f"level must be one of {', '.join(LEVELS)}, got {level!r:.80}")
        found = tuple(cpu for cpu, at in enumerate(getattr(self, level)) if at == number)
        if not found:
            raise InvalidValueError(
                f"{level} must be 0 to {max(getattr(self, level))}, got {number!r:.80}"
            )
        return found

    def distance(self, a: int, b: int) -> int:
        """Give how far two CPUs are apart.

        Returns
        -------
        int
            0 the same CPU, 1 the same core, 2 the same last-level cache, 3 the same NUMA node,
            4 the same socket, 5 none of these.
        """
        for cpu in (a, b):
            if not 0 <= cpu < self.cpus:
                raise InvalidValueError(f"CPUs are 0 to {self.cpus - 1}, got {cpu!r:.80}")
        if a == b:
            return 0
        for far, name in enumerate(LEVELS, 1):
            numbers = getattr(self, name)
            if numbers[a] == numbers[b]:
                return far
        return 5

    def _array(self) -> npt.NDArray[np.uint16]:
        """Core, LLC, node and socket of each CPU, for the core."""
        return np.array([getattr(self, name) for name in LEVELS], np.uint16)

    def _speeds(self) -> npt.NDArray[np.uint32]:
        """Of a thread by the number of busy ones of its core, in 2**-16."""
        totals = enumerate((1.0, 1.0, *self.smt))
        return np.array(
            [int(Fraction(t) * (1 << 16) / max(k, 1)) or 1 for k, t in totals], np.uint32
        )

    def _costs(self) -> npt.NDArray[np.int64]:
        return np.array((0, *self.migration_ns), np.int64)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Topology):
            return NotImplemented
        return self._values() == other._values()

    def __hash__(self) -> int:
        return hash(self._values())

    def _values(self) -> tuple[Any, ...]:
        return tuple(getattr(self, name) for name in (*LEVELS, "smt", "migration_ns"))

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, self._values()

    def __repr__(self) -> str:
        return (
            f"<Topology sockets={self.sockets} nodes={self.nodes} llcs={self.llcs} "
            f"cores={self.cores} cpus={self.cpus}>"
        )


def _rebuild(core: Any, llc: Any, node: Any, socket: Any, smt: Any, costs: Any) -> Topology:
    return Topology.from_numbers(
        core=core, llc=llc, node=node, socket=socket, smt=smt or 1.0, migration_ns=costs
    )


def _totals(smt: Any, threads: int) -> tuple[float, ...]:
    """For 2 to `threads` busy threads."""
    try:
        given = [float(smt)] if isinstance(smt, Real) else [float(each) for each in smt]
    except (TypeError, ValueError):
        raise InvalidTypeError(f"smt must be one number or several, got {smt!r:.80}") from None
    if not given:
        raise InvalidValueError("smt must have a number for two busy threads, got none")
    for busy, total in enumerate(given, 2):
        if not 0 < total <= busy:
            raise InvalidValueError(
                f"{busy} busy threads of a core do more than 0 and at most {busy} times the work "
                f"of one, smt says {total}"
            )
    return tuple((given + given[-1:] * threads)[: threads - 1])


def _costs(values: Any) -> tuple[int, ...]:
    if values is None:
        return (0,) * 5
    if isinstance(values, (str, bytes)) or not hasattr(values, "__iter__"):
        raise InvalidTypeError(f"migration_ns must be five integers, got {values!r:.80}")
    costs = tuple(_integer(each, "migration_ns") for each in values)
    if len(costs) != 5:
        raise InvalidValueError(f"migration_ns must be five integers, got {len(costs)}")
    for each in costs:
        if not 0 <= each < MOST_COST:
            raise InvalidValueError(f"migration_ns must be 0 to {MOST_COST - 1:,}, got {each:,}")
    return costs


def _integer(value: Any, name: str) -> int:
    try:
        if isinstance(value, (bool, np.bool_)):
            raise TypeError
        return index(value)
    except TypeError:
        raise InvalidTypeError(f"{name} must be an integer, got {value!r:.80}") from None


def _count(value: Any, name: str) -> int:
    count = _integer(value, name)
    if not 1 <= count <= MOST_CPUS:
        raise InvalidValueError(f"{name} must be 1 to {MOST_CPUS:,}, got {count:,}")
    return count


def _numbers(values: Any, name: str) -> npt.NDArray[np.int64]:
    if isinstance(values, (str, bytes)) or not hasattr(values, "__iter__"):
        raise InvalidTypeError(f"{name} must be a number for each CPU, got {values!r:.80}")
    numbers = [_integer(each, name) for each in values]
    for each in numbers:
        if not 0 <= each < 1 << 32:
            raise InvalidValueError(f"{name} numbers are 0 to 2**32 - 1, got {each}")
    return np.array(numbers, np.int64)
