"""The memory manager of hosts: flat arrays over hosts and their VMs, one call for a step of all."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from pyvirt.errors import AdmissionError, InvalidTypeError, InvalidValueError
from pyvirt.hostmem import layout as at
from pyvirt.hostmem.constants import Constants
from pyvirt.hostmem.counters import esxtop
from pyvirt.hostmem.states import Action, MemoryState, Policy, policy_of
from pyvirt.hostmem.targets import check_tax
from pyvirt.hostmem.views import Columns, VMView, host_columns, vm_columns, whole

__all__ = ["HostMemory"]

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

_RULES = {
    100: ("used", "must be at most the VM's memory"),
    101: ("active", "must be at most `used`"),
    102: ("reservation", "must be at most the VM's limit and memory"),
    103: ("memory", "must not be changed: it is the sum of where its pages are"),
}
_LEAST = np.array([setting.least for setting in at.SETTINGS.values()], dtype=np.int64)
_MOST = np.array([setting.most for setting in at.SETTINGS.values()], dtype=np.int64)


class HostMemory:
    """The machine memory of one host or of many, and who has it.

    Each VM has guest-physical pages, each of which is untouched, mapped, compressed, swapped or in
    the balloon; mapped ones may share machine pages. `step` lets time pass: VMs touch what they
    use, and where memory is short the host takes it from those above their targets, by the means
    that its state allows. All counts are whole pages of 4 KiB and add up exactly.

    Parameters
    ----------
    total_pages : int or array_like of int
        Machine pages of the host, or of each host.
    policy : {"esx6", "esx2002"} or Policy, default "esx6"
        Thresholds and actions of the states, see `pyvirt.hostmem.Policy`.
    hysteresis : float, optional
        How much above a threshold a state is left, as a part of it; 0.1 with ``"esx6"`` and 0 with
        ``"esx2002"``, where the threshold is that of the next better state. Unpublished.
    kernel_pages : int or array_like of int, default 0
        What the hypervisor itself takes.
    classes : sequence of str, optional
        Names of page contents that VMs may have in common, beside ``"zero"``.
    tax : float, default 0.75
        On idle memory, see `targets`.
    constants : Constants, optional
        Rates and times.
    seed : int, default 0
        Of the samples of working sets.

    Attributes
    ----------
    vms, hosts : Columns
        Arrays by name, a number for each VM or host. VMs stand in the order of their hosts.
    first : ndarray of int64
        The VMs of host i are those from ``first[i]`` to ``first[i + 1] - 1``.
    names : list of str
        Of the VMs.
    now_ns : int
        Time since the start.
    policy, constants, tax, seed, classes
        As given.

    Examples
    --------
    Two VMs of 1 GiB on a host of 1.5 GiB, of which one uses all of its memory and touches little:

    >>> from pyvirt.hostmem import HostMemory
    >>> memory = HostMemory(393_216, policy="esx2002")
    >>> idle = memory.add(0, "idle", memory=262_144, used=262_144, active=26_214)
    >>> busy = memory.add(0, "busy", memory=262_144, used=131_072, active=131_072)
    >>> for _ in range(300):
    ...     memory.step(1_000_000_000)
    >>> busy.used = busy.active = 250_000
    >>> for _ in range(600):
    ...     memory.step(1_000_000_000)
    >>> busy.mapped, idle.mapped < 130_000, idle.swapped > 0
    (250000, True, True)
    >>> memory.check()
    """

    def __init__(
        self,
        total_pages: int | npt.ArrayLike,
        policy: str | Policy = "esx6",
        *,
        hysteresis: float | None = None,
        kernel_pages: int | npt.ArrayLike = 0,
        classes: Sequence[str] = (),
        tax: float = 0.75,
        constants: Constants | None = None,
        seed: int = 0,
    ) -> None:
        self.policy = policy_of(policy, hysteresis)
        self.tax = check_tax(tax)
        self.constants = Constants() if constants is None else constants
        if not isinstance(self.constants, Constants):
            raise InvalidTypeError(f"constants must be a Constants, not {constants!r:.80}")
        self.seed = whole(seed, "seed")
        self.classes = _class_names(classes)
        total = np.atleast_1d(_whole_array(total_pages, "total_pages", 1))
        if total.ndim != 1 or not len(total):
            raise InvalidTypeError(f"total_pages must have one number a host, not {total_pages!r}")
        kernel = _whole_array(kernel_pages, "kernel_pages", 0)
        if kernel.shape not in ((), total.shape):
            raise InvalidTypeError(
                f"kernel_pages must have shape ({len(total)},), not {kernel.shape}"
            )
        if (kernel > total).any():
            raise InvalidValueError(
                f"kernel_pages must be at most total_pages, got {kernel_pages!r:.80}"
            )
        self._h: Ints = np.zeros((len(at.HOST_ROWS), len(total)), dtype=np.int64)
        self._h[at.TOTAL] = total
        self._h[at.KERNEL] = kernel
        self._h[at.FREE] = total - kernel
        self._h[at.ENTER_CLEAR :] = self.policy.thresholds(total)
        self._v: Ints = np.zeros((len(at.VM_ROWS), 0), dtype=np.int64)
        self._r: Floats = np.zeros((len(at.VM_REALS), 0))
        self._content, self._scanned, self._base = (
            np.zeros((len(self.classes), 0), dtype=np.int64) for _ in range(3)
        )
        self.first: Ints = np.zeros(len(total) + 1, dtype=np.int64)
        self.names: list[str] = []
        self._rows: dict[str, int] = {}
        self._keys = 0
        self.now_ns = 0

    @property
    def vms(self) -> Columns:
        """Columns of the VMs by name; inputs can be written in place."""
        return vm_columns(self)

    @property
    def hosts(self) -> Columns:
        """Columns of the hosts by name."""
        return host_columns(self)

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        return (
            f"<HostMemory of {self._h.shape[1]} hosts and {len(self)} VMs, {self.policy.name}, "
            f"{self.now_ns:,} ns>"
        )

    def _array(self, name: str) -> npt.NDArray[Any]:
        """Give the matrix of that letter."""
        return {"v": self._v, "r": self._r, "h": self._h}[name]

    def row(self, name: str) -> int:
        """Give the place of a VM in all columns of `vms`."""
        try:
            return self._rows[name]
        except (KeyError, TypeError):
            raise InvalidValueError(f"there is no VM {name!r:.80} on these hosts") from None

    def vm(self, name: str) -> VMView:
        """Give a view of one VM."""
        self.row(name)
        return VMView(self, name)

    def content(self, kind: str) -> Ints:
        """Give, for each VM, how many of its pages are of a class; may be written in place.

        Pages that are taken from a class were written: shared ones get a copy of their own.
        """
        if kind not in self.classes:
            names = ", ".join(self.classes)
            raise InvalidValueError(f"there is no class {kind!r:.80}; there are {names}")
        row: Ints = self._content[self.classes.index(kind)]
        return row

    def states(self) -> list[MemoryState]:
        """Give the state of each host."""
        return [MemoryState(int(state)) for state in self._h[at.STATE]]

    def add(
        self,
        host: int,
        name: str | None = None,
        *,
        content: Mapping[str, int] | None = None,
        **inputs: int,
    ) -> VMView:
        """Put a VM on a host, with all its memory untouched.

        Parameters
        ----------
        host : int
        name : str, optional
            By default ``"vm"`` and a number.
        content : mapping of str to int, optional
            Pages of each class.
        **inputs : int
            By the names of `SETTINGS` (pages if not said): `memory` must be given; `shares`
            (Normal: 10 for each MiB), `reservation`, `limit` (-1: none), `used`, `active`,
            `touch_ns`, `tools`, `balloon_max` (-1: the policy's part), `large_pages`, `sharing`,
            `salt` (-1: the policy's), `compressible` (of 1,000), `vcpus`, `overhead`.

        Returns
        -------
        VMView

        Raises
        ------
        AdmissionError
            Reservations and overheads would exceed what the host has, or the overhead what is
            free.
        """
        names = None if name is None else [name]
        contents = {key: [value] for key, value in (content or {}).items()}
        columns = {key: [value] for key, value in inputs.items()}
        return self.add_many([host], names, content=contents, **columns)[0]

    def add_many(
        self,
        host: npt.ArrayLike,
        names: Sequence[str] | None = None,
        *,
        content: Mapping[str, npt.ArrayLike] | None = None,
        **inputs: npt.ArrayLike,
    ) -> list[VMView]:
        """Put many VMs on hosts: as `add`, with an array, or one number for all, in each argument.

        All of them are put there, or none.
        """
        where = np.atleast_1d(_whole_array(host, "host", 0, self._h.shape[1] - 1))
        n = len(where)
        given = self._given_names(names, n)
        new = np.zeros((len(at.VM_ROWS), n), dtype=np.int64)
        for key in inputs:
            if key not in at.SETTINGS:
                known = ", ".join(at.SETTINGS)
                raise InvalidTypeError(f"a VM has no input {key!r:.80}; it has {known}")
        for row, (key, setting) in enumerate(at.SETTINGS.items()):
            value = inputs.get(key, setting.default)
            if value is None:
                raise InvalidTypeError(f"{key} must be given")
            new[row] = _fitting(value, key, n, setting.least, setting.most)
        normal = np.maximum(new[at.MEMORY] // 256 * 10, 1)
        new[at.SHARES] = np.where(new[at.SHARES] < 0, normal, new[at.SHARES])
        new[at.UNTOUCHED] = new[at.MEMORY]
        new[at.KEY] = self._keys + np.arange(n)
        new[at.PERIOD] = self.now_ns // int(self.constants.period_ns)
        new[at.TARGET] = new[at.MEMORY]
        # as in the logs of VMware's products: 75 % touched before anything is known
        new[at.ESTIMATE] = new[at.MEMORY] * 3 // 4
        self._refuse(new, given)
        reals = np.zeros((len(at.VM_REALS), n))
        reals[at.FAST] = reals[at.SLOW] = 0.75
        contents = np.zeros((len(self.classes), n), dtype=np.int64)
        for kind, pages in (content or {}).items():
            if kind not in self.classes:
                known = ", ".join(self.classes)
                raise InvalidValueError(f"there is no class {kind!r:.80}; there are {known}")
            contents[self.classes.index(kind)] = _fitting(pages, f"content {kind!r}", n, 0, at.MOST)
        self._admit(where, new)
        self._insert(where, given, new, reals, contents)
        self._keys += n
        return [VMView(self, name) for name in given]

    def remove(self, names: str | Sequence[str]) -> None:
        """Take VMs off their hosts, with all that they had."""
        gone = [names] if isinstance(names, str) else list(names)
        rows = {self.row(name) for name in gone}
        keep = np.array([i for i in range(len(self)) if i not in rows], dtype=np.int64)
        self._order(self._hosts_of_vms()[keep], keep, self.names)

    def move(self, name: str, host: int) -> None:
        """Move a VM to another host, with all that it has.

        What it shared it takes along as pages of its own, and what is in large pages as small ones.
        Pages in swap files and in its compression cache stay there. Those for which the other host
        has no room are swapped there.

        Parameters
        ----------
        name : str
        host : int

        Raises
        ------
        AdmissionError
            As for `add`, or not even swapping makes room for its compressed pages; it stays.
        """
        row, there = self.row(name), whole(host, "host", 0, self._h.shape[1] - 1)
        hosts = self._hosts_of_vms()
        if hosts[row] == there:
            return
        vm = self._v[:, row].copy()
        self._admit(np.array([there]), vm[:, None])
        room = int(self._h[at.FREE, there] - vm[at.OVERHEAD])
        cache = -(-vm[at.ZIPPED] // at.CACHED_PER_PAGE)
        if cache > room:
            raise AdmissionError(f"host {there}, free memory", float(cache), float(room), name)
        swapped = max(int(vm[at.MAPPED] + cache) - room, 0)
        if swapped:
            resident = vm[at.LAST_ACTIVE] - vm[at.ZIPPED_ACTIVE] - vm[at.SWAPPED_ACTIVE]
            active = max(int(resident), 0) * swapped // int(vm[at.MAPPED])
            vm[at.SWAPPED_ACTIVE] += min(active, swapped)
            vm[[at.SWAPPED, at.SWAP_OUT]] += swapped
            vm[at.MAPPED] -= swapped
        vm[[at.SCANNED, at.SHARED, at.LARGE, at.CURSOR]] = 0
        self._v[:, row] = vm
        self._scanned[:, row] = self._base[:, row] = 0
        hosts[row] = there
        order = np.argsort(hosts, kind="stable")
        self._order(hosts[order], order, self.names)

    def step(self, dt_ns: int, *, threads: int = 1) -> None:
        """Let time pass on all hosts.

        Parameters
        ----------
        dt_ns : int
            What VMs use and touch is constant within it. Rates hold on average over it.
        threads : int, default 1
            Hosts are divided among them; the result is the same for any number.

        Raises
        ------
        InvalidValueError
            An input of a VM is out of range; nothing has changed.
        """
        from pyvirt.entitlement import addresses
        from pyvirt.hostmem.kernels.step import step

        dt = whole(dt_ns, "dt_ns", 1)
        count = min(whole(threads, "threads", 1, 1024), self._h.shape[1])
        self.validate()
        k = self._constants(dt)
        actions = np.array(self.policy.actions, dtype=np.int64)
        solver = addresses()["divide"]

        def run(low: int, high: int) -> None:
            step(
                self._v, self._r, self._content, self._scanned, self._base, self._h, self.first,
                low, high, k, actions, solver, self.seed,
            )  # fmt: skip

        bounds = np.linspace(0, self._h.shape[1], count + 1).astype(np.int64)
        if count == 1:
            run(0, self._h.shape[1])
        else:
            with ThreadPoolExecutor(count) as pool:
                list(pool.map(run, bounds[:-1].tolist(), bounds[1:].tolist()))
        self.now_ns += dt

    def rebalance(self) -> None:
        """Set `vms.target` for what the VMs have now; `step` does so itself."""
        from pyvirt.entitlement import addresses
        from pyvirt.hostmem.kernels.step import rebalance

        self.validate()
        rebalance(self._v, self._h, self.first, self._constants(0), addresses()["divide"])

    def _constants(self, dt: int) -> Floats:
        k = self.constants.vector()
        k[at.DT_NS], k[at.NOW_NS], k[at.KEEP] = dt, self.now_ns, 1.0 - self.tax
        k[at.BALLOON_PART] = float(self.policy.balloon_part)
        k[at.CACHE_PART] = float(self.policy.cache_part)
        done = np.bitwise_or.reduce(np.array(self.policy.actions))
        if not done & Action.COMPRESS:
            k[at.CACHE_PART] = 0.0
        if not done & Action.SWAP:
            k[at.SWAP_RATE] = 0.0
        return k

    def validate(self) -> None:
        """Check the inputs of all VMs, which may have been written in place."""
        from pyvirt.hostmem.kernels.state import find_bad

        bad, rule = find_bad(self._v, _LEAST, _MOST)
        if bad >= 0:
            self._complain(self._v, int(bad), int(rule), self.names[bad])
        low = self._content.min(initial=0)
        if low < 0:
            raise InvalidValueError(f"contents must not be negative, got {low}")

    def check(self) -> None:
        """Add up all pages; raises AssertionError if one is missing or there twice."""
        v, h = self._v, self._h
        where = v[at.UNTOUCHED] + v[at.MAPPED] + v[at.ZIPPED] + v[at.SWAPPED] + v[at.BALLOONED]
        parts = v[at.UNTOUCHED : at.SWAPPED_ACTIVE + 1]
        if (where != v[at.MEMORY]).any() or (parts < 0).any():
            raise AssertionError("guest pages do not add up")
        if (v[at.SCANNED] + v[at.LARGE] > v[at.MAPPED]).any():
            raise AssertionError("more pages scanned and large than mapped")
        if (self._scanned.sum(axis=0) != v[at.SCANNED]).any():
            raise AssertionError("scanned pages do not add up")
        cache = -(-v[at.ZIPPED] // at.CACHED_PER_PAGE)
        own = v[at.MAPPED] - v[at.SHARED] + cache + v[at.OVERHEAD]
        sums = np.concatenate([[0], np.cumsum(own)])
        taken = sums[self.first[1:]] - sums[self.first[:-1]]
        missing = h[at.TOTAL] - h[at.KERNEL] - h[at.COPIES] - h[at.FREE] - taken
        if missing.any() or (h[at.FREE] < 0).any():
            raise AssertionError("machine pages do not add up")

    def counters(self) -> dict[str, Any]:
        """Give a copy of all counts with the time and the VMs' names, for `esxtop`."""
        return {
            "now_ns": self.now_ns,
            "names": list(self.names),
            "counts": self._v[at.COUNTERS :].copy(),
        }

    def esxtop(self, since: dict[str, Any] | None = None) -> dict[str, Floats]:
        """Give esxtop's memory columns for each VM, see `pyvirt.hostmem.counters`.

        Parameters
        ----------
        since : dict, optional
            What `counters` gave earlier: rates are means since then, by default since the start.

        Returns
        -------
        dict of str to ndarray of float64
            MiB, MiB/s and percent.
        """
        return esxtop(self, since)

    def copy(self) -> HostMemory:
        """Give an independent copy that goes on in the same way."""
        return copy.deepcopy(self)

    def _hosts_of_vms(self) -> Ints:
        return np.repeat(np.arange(len(self.first) - 1), np.diff(self.first))

    def _given_names(self, names: Sequence[str] | None, n: int) -> list[str]:
        if names is None:
            return [f"vm{self._keys + i}" for i in range(n)]
        given = list(names)
        if isinstance(names, str) or len(given) != n:
            raise InvalidTypeError(f"names must be {n} strings, not {names!r:.80}")
        for name in given:
            if not isinstance(name, str):
                raise InvalidTypeError(f"a VM's name must be a string, not {name!r:.80}")
        taken = [name for name in given if name in self._rows or given.count(name) > 1 < n < 1000]
        if taken or len(set(given)) < n:
            raise InvalidValueError(f"a VM's name must be new, got {(taken or given)[0]!r:.80}")
        return given

    def _refuse(self, new: Ints, names: list[str]) -> None:
        from pyvirt.hostmem.kernels.state import find_bad

        bad, rule = find_bad(new, _LEAST, _MOST)
        if bad >= 0:
            self._complain(new, int(bad), int(rule), names[bad])

    @staticmethod
    def _complain(v: Ints, bad: int, rule: int, name: str) -> None:
        if rule >= 100:
            key, text = _RULES[rule]
        else:
            key = at.VM_ROWS[rule]
            text = f"must be in [{_LEAST[rule]:,}, {_MOST[rule]:,}]"
        value = v[at.VM_ROWS.index(key), bad]
        raise InvalidValueError(f"{key} of VM {name!r:.80} {text}, got {value:,}")

    def _admit(self, where: Ints, new: Ints) -> None:
        """Refuse what cannot be promised, or has no room to start in."""
        hosts = self._h.shape[1]
        asked = np.zeros(hosts, dtype=np.int64)
        np.add.at(asked, where, new[at.RESERVATION] + new[at.OVERHEAD])
        held = np.zeros(hosts, dtype=np.int64)
        np.add.at(held, self._hosts_of_vms(), self._v[at.RESERVATION] + self._v[at.OVERHEAD])
        there = self._h[at.TOTAL] - self._h[at.KERNEL] - held
        overhead = np.zeros(hosts, dtype=np.int64)
        np.add.at(overhead, where, new[at.OVERHEAD])
        for needed, available, what in (
            (asked, there, "reservations"),
            (overhead, self._h[at.FREE], "free memory for overhead"),
        ):
            short = (needed > available) & (needed > 0)
            if short.any():
                host = int(short.argmax())
                raise AdmissionError(
                    f"host {host}, {what}", float(needed[host]), float(max(available[host], 0))
                )

    def _insert(
        self, where: Ints, names: list[str], new: Ints, reals: Floats, content: Ints
    ) -> None:
        hosts = np.concatenate([self._hosts_of_vms(), where])
        order = np.argsort(hosts, kind="stable")
        self._v = np.concatenate([self._v, new], axis=1)
        self._r = np.concatenate([self._r, reals], axis=1)
        nothing = np.zeros_like(content)
        self._content = np.concatenate([self._content, content], axis=1)
        self._scanned = np.concatenate([self._scanned, nothing], axis=1)
        self._base = np.concatenate([self._base, nothing], axis=1)
        self._order(hosts[order], order, [*self.names, *names])

    def _order(self, hosts: Ints, order: Ints, names: list[str]) -> None:
        """Keep these VMs, in this order of their hosts, and find free pages anew."""
        from pyvirt.hostmem.kernels.state import free_of  # noqa: F401  (compiles with settle)
        from pyvirt.hostmem.kernels.step import settle

        self._v = np.ascontiguousarray(self._v[:, order])
        self._r = np.ascontiguousarray(self._r[:, order])
        self._content, self._scanned, self._base = (
            np.ascontiguousarray(array[:, order])
            for array in (self._content, self._scanned, self._base)
        )
        self.names = [names[i] for i in order]
        self._rows = {name: i for i, name in enumerate(self.names)}
        count = np.bincount(hosts, minlength=self._h.shape[1])
        self.first = np.concatenate([[0], np.cumsum(count)]).astype(np.int64)
        # numbers of equal salts within a host
        alone = -1 - self._v[at.KEY] if self.policy.salted else np.zeros_like(self._v[at.KEY])
        salt = np.where(self._v[at.SALT] < 0, alone, self._v[at.SALT])
        if len(self):
            _, group = np.unique(np.stack([hosts, salt]), axis=1, return_inverse=True)
            group = group.reshape(-1)
            least = np.full(self._h.shape[1], len(self), dtype=np.int64)
            np.minimum.at(least, hosts, group)
            self._v[at.GROUP] = group - least[hosts]
        settle(self._v, self._scanned, self._h, self.first)


def _class_names(classes: Sequence[str]) -> tuple[str, ...]:
    if isinstance(classes, str):
        raise InvalidTypeError(f"classes must be a sequence of names, not {classes!r:.80}")
    names = ("zero", *classes)
    for name in names:
        if not isinstance(name, str):
            raise InvalidTypeError(f"a class must be a string, not {name!r:.80}")
    if len(set(names)) < len(names):
        raise InvalidValueError(f'classes must differ, and none be "zero", got {classes!r:.80}')
    return names


def _whole_array(value: Any, name: str, least: int, most: int = at.MOST) -> Ints:
    try:
        array = np.asarray(value)
        if array.dtype.kind not in "iuf":
            raise TypeError
        made = array.astype(np.int64)
    except (TypeError, ValueError, OverflowError):
        raise InvalidTypeError(f"{name} must be integers, not {value!r:.80}") from None
    bad = ~((array >= least) & (array <= most)) | (made != array)
    if bad.any():
        raise InvalidValueError(
            f"{name} must be whole numbers in [{least:,}, {most:,}], got {array[bad].flat[0]}"
        )
    return made


def _fitting(value: Any, name: str, n: int, least: int, most: int) -> Ints:
    array = _whole_array(value, name, least, most)
    if array.shape not in ((), (1,), (n,)):
        raise InvalidTypeError(f"{name} must have shape ({n},), not {array.shape}")
    return np.broadcast_to(array, (n,))
