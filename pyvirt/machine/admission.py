"""Who may be powered on: what is reserved of a host's CPU and memory, over its resource pools."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence

from pyvirt.entitlement import Client, Ledger, Pool, Shares
from pyvirt.errors import AdmissionError, InvalidTypeError, InvalidValueError
from pyvirt.spec import HostSpec, PoolSpec

__all__ = ["Admission", "pool_of", "pool_tree"]


def pool_tree(root: str, pools: Iterable[PoolSpec], resource: str) -> tuple[Pool, dict[str, str]]:
    """Give the tree of a resource, and the path of each pool by its name.

    Parameters
    ----------
    root : str
        What the whole is called.
    pools : iterable of PoolSpec
        A pool stands after its parent.
    resource : {"cpu", "memory"}
        In MHz, or bytes.
    """
    listed = tuple(pools)
    for one in listed:
        if not isinstance(one, PoolSpec):
            raise InvalidTypeError(f"each of pools must be a PoolSpec, got {one!r:.80}")
    paths = {"": root}
    for one in listed:
        if one.name in paths:
            raise InvalidValueError(f"pools must differ in name, two are {one.name!r:.80}")
        if one.parent not in paths:
            raise InvalidValueError(
                f"parent of pool {one.name!r:.80} must be a pool before it, got {one.parent!r:.80}"
            )
        paths[one.name] = f"{paths[one.parent]}/{one.name}"

    def below(parent: str) -> list[Pool]:
        return [pool_of(one, below(one.name), resource) for one in listed if one.parent == parent]

    return Pool(root, below("")), paths


def pool_of(spec: PoolSpec, children: Sequence[Pool | Client], resource: str) -> Pool:
    """Give a described pool of a resource, with what is in it."""
    shares = spec.cpu if resource == "cpu" else spec.mem
    limit = getattr(spec, f"{resource}_limit")
    return Pool(
        spec.name,
        children,
        Shares(shares) if isinstance(shares, str) else float(shares),
        float(getattr(spec, f"{resource}_reservation")),
        math.inf if limit is None else float(limit),
        getattr(spec, f"{resource}_expandable"),
    )


class Admission:
    """What is reserved on a host, by pool, of CPU (MHz) and memory (bytes).

    Parameters
    ----------
    spec : HostSpec
        The host. Its CPU is that of its cores; its memory is that without ``memory_for_host``.
    pools : iterable of PoolSpec
        Its resource pools.
    """

    def __init__(self, spec: HostSpec, pools: Iterable[PoolSpec]) -> None:
        listed = tuple(pools)
        root = spec.name.replace("/", "_")
        self.cpu_tree, self.paths = pool_tree(root, listed, "cpu")
        memory_tree, _ = pool_tree(root, listed, "memory")
        self._cpu = Ledger(self.cpu_tree, spec.cores * spec.mhz)
        self.has_memory = spec.memory > 0
        room = float(spec.memory - spec.memory_for_host) if self.has_memory else math.inf
        self._memory = Ledger(memory_tree, room) if self.has_memory else None
        self._host, self._spec = spec.name, spec
        self._held: Counter[tuple[str, float, int]] = Counter()

    def path(self, pool: str, vm: str) -> str:
        """Give the path of the pool that a machine names."""
        if pool not in self.paths:
            there = ", ".join(name for name in self.paths if name) or "none"
            raise InvalidValueError(
                f"pool of VM {vm!r:.80} must be one of host {self._host!r:.80}, "
                f"got {pool!r:.80}; there are {there:.200}"
            )
        return self.paths[pool]

    def reserve(self, vm: str, pool: str, cpu_mhz: float, memory: int) -> None:
        """Reserve both, or neither.

        Raises
        ------
        AdmissionError
            What is missing, and in which pool.
        """
        path = self.path(pool, vm)
        _named(self._cpu, path, cpu_mhz, vm)
        if self._memory is None:
            self._held[pool, cpu_mhz, memory] += 1
            return
        try:
            _named(self._memory, path, float(memory), vm)
        except AdmissionError:
            self._cpu.release(path, cpu_mhz)
            raise
        self._held[pool, cpu_mhz, memory] += 1

    def release(self, pool: str, cpu_mhz: float, memory: int) -> None:
        """Give both back."""
        self._cpu.release(self.paths[pool], cpu_mhz)
        if self._memory is not None:
            self._memory.release(self.paths[pool], float(memory))
        self._held[pool, cpu_mhz, memory] -= 1

    def change(
        self, vm: str, pool: str, before: tuple[float, int], after: tuple[float, int]
    ) -> None:
        """Reserve other MHz and bytes than before, or leave it.

        Raises
        ------
        AdmissionError
            What is missing, and in which pool; nothing has changed.
        """
        self.release(pool, *before)
        try:
            self.reserve(vm, pool, *after)
        except AdmissionError:
            self.reserve(vm, pool, *before)
            raise

    def with_pools(self, pools: Iterable[PoolSpec]) -> Admission:
        """Give the same reservations over pools of other shares and bounds.

        Raises
        ------
        AdmissionError
            They do not fit; nothing has changed.
        """
        made = Admission(self._spec, pools)
        for (pool, cpu_mhz, memory), count in self._held.items():
            for _ in range(count):
                made.reserve("", pool, cpu_mhz, memory)
        return made

    def cpu_left(self, pool: str = "") -> float:
        """Give the MHz that a new machine in a pool could reserve."""
        return self._cpu.available(self.paths[pool])

    def memory_left(self, pool: str = "") -> float:
        """Give the bytes that a new machine in a pool could reserve, its monitor's included."""
        return math.inf if self._memory is None else self._memory.available(self.paths[pool])


def _named(ledger: Ledger, path: str, amount: float, vm: str) -> None:
    try:
        ledger.reserve(path, amount)
    except AdmissionError as error:
        # beyond the root there is the host itself
        short = path.partition("/")[0] if error.pool == "(capacity)" else error.pool
        raise AdmissionError(short, error.needed, error.available, vm) from None
