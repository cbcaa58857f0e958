"""The memory of all hosts of a scenario, stepped together."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from pyvirt.errors import AdmissionError
from pyvirt.hostmem import HostMemory
from pyvirt.machine.memory import constants_for, memory_inputs, policy_for, set_claim
from pyvirt.machine.profile import MemoryRules, Profile
from pyvirt.spec import ClusterSpec, MemoryLoadSpec, MemoryPolicySpec, VMSpec

__all__ = ["ClusterMemory"]

Ints = npt.NDArray[np.int64]
PAGE = 4096
SECOND = 1_000_000_000
#: Samples of `Result.vms`, and the columns of `HostMemory.vms` that they are.
COLUMNS = {
    "active_pages": "active",
    "granted_pages": "used",
    "mapped_pages": "mapped",
    "shared_pages": "shared",
    "balloon_pages": "ballooned",
    "compressed_pages": "zipped",
    "swapped_pages": "swapped",
}


class ClusterMemory:
    """One memory manager for all hosts whose hypervisors deal with memory in the same way.

    Parameters
    ----------
    cluster : ClusterSpec
        Hosts without memory have no manager.
    profiles : list of Profile
        Of each host.
    changes : MemoryPolicySpec
        Of the scenario.
    seed : int
        Of the samples of working sets.
    step_ns : int
        Time between two steps, which are too short for threads to be worth it.
    """

    def __init__(
        self,
        cluster: ClusterSpec,
        profiles: list[Profile],
        changes: MemoryPolicySpec,
        *,
        seed: int,
        step_ns: int,
    ) -> None:
        self.step_ns, self.now_ns = step_ns, 0
        self._profiles = profiles
        self.rules: list[MemoryRules] = [one.memory_rules(changes) for one in profiles]
        self._home: dict[int, tuple[HostMemory, int]] = {}
        self._models: list[HostMemory] = []
        works = (vm.workload for vm in cluster.vms if vm.workload is not None)
        kinds = tuple(dict.fromkeys(one.name for work in works for one in work.memory.classes))
        groups: dict[MemoryRules, list[int]] = {}
        for row, host in enumerate(cluster.hosts):
            if host.memory:
                groups.setdefault(self.rules[row], []).append(row)
        for rules, rows in groups.items():
            model = HostMemory(
                [cluster.hosts[row].memory // PAGE for row in rows],
                policy_for(rules),
                kernel_pages=[cluster.hosts[row].memory_for_host // PAGE for row in rows],
                classes=kinds,
                tax=rules.idle_tax,
                constants=constants_for(rules),
                seed=seed,
            )
            self._models.append(model)
            self._home.update((row, (model, at)) for at, row in enumerate(rows))
        self._specs: dict[int, VMSpec] = {}
        self._model: dict[int, HostMemory] = {}
        self._rows: dict[str, int] = {}
        self._growth: dict[int, float] = {}
        self._used: dict[int, float] = {}
        self._waited: dict[int, int] = {}
        self._places: dict[int, Ints] = {}  # rows of the machines of each model

    @property
    def any(self) -> bool:
        """Whether a host has a memory manager."""
        return bool(self._models)

    def add(self, row: int, spec: VMSpec, host: int, overhead: int) -> None:
        """Give a machine its memory on a host, untouched but for what it says it has.

        Raises
        ------
        AdmissionError
            There is no room.
        """
        if host not in self._home or not spec.memory:
            return
        model, place = self._home[host]
        inputs, content = self._inputs(spec, host, overhead)
        model.add(place, spec.name, content=content, **inputs)
        self._note(row, spec, model, inputs["used"])

    def add_many(self, machines: list[tuple[int, VMSpec, int, int]]) -> bool:
        """Give many machines their memory, as `add`; False: not all have room, and none has any."""
        groups: dict[int, list[tuple[int, VMSpec, int, dict[str, int], dict[str, int]]]] = {}
        for row, spec, host, overhead in machines:
            if host in self._home and spec.memory:
                model, place = self._home[host]
                inputs, content = self._inputs(spec, host, overhead)
                groups.setdefault(id(model), []).append((row, spec, place, inputs, content))
        models = {id(model): model for model in self._models}
        done: list[tuple[HostMemory, list[str]]] = []
        for key, rows in groups.items():
            model = models[key]
            columns = {name: [one[3][name] for one in rows] for name in rows[0][3]}
            contents = {kind: [one[4].get(kind, 0) for one in rows] for kind in model.classes}
            names = [one[1].name for one in rows]
            try:
                model.add_many([one[2] for one in rows], names, content=contents, **columns)
            except AdmissionError:
                for other, added in done:
                    other.remove(added)
                return False
            done.append((model, names))
        for key, rows in groups.items():
            for row, spec, _, inputs, _ in rows:
                self._note(row, spec, models[key], inputs["used"])
        return True

    def _inputs(
        self, spec: VMSpec, host: int, overhead: int
    ) -> tuple[dict[str, int], dict[str, int]]:
        load = _load(spec)
        profile, rules = self._profiles[host], self.rules[host]
        inputs = memory_inputs(spec, overhead, spec.tools, profile, rules)
        pages = inputs["memory"]
        content = {one.name: round(one.share * pages) for one in load.classes}
        content["zero"] = round(load.zero * pages)
        return inputs, content

    def _note(self, row: int, spec: VMSpec, model: HostMemory, used: float) -> None:
        self._rows[spec.name], self._specs[row], self._model[row] = row, spec, model
        growth = _load(spec).touch_rate / PAGE
        if growth:
            self._growth[row] = growth
        self._used[row] = float(used)
        self._waited[row] = 0
        self._places.clear()

    def reclaim(self, row: int, spec: VMSpec, host: int, overhead: int) -> None:
        """Give a machine that runs other shares and bounds.

        Raises
        ------
        AdmissionError
            The reservation is not to be had; nothing has changed.
        """
        if row in self._model:
            inputs, _ = self._inputs(spec, host, overhead)
            set_claim(self._model[row], spec.name, inputs)
            self._specs[row] = spec

    def remove(self, row: int) -> None:
        """Take a machine's memory from it."""
        if row in self._model:
            self._model.pop(row).remove(self._specs[row].name)
            self._growth.pop(row, None)
            del self._rows[self._specs[row].name], self._used[row], self._waited[row]
            self._places.clear()

    def move(self, row: int, host: int, overhead: int) -> None:
        """Move a machine's memory; between hypervisors that differ it comes whole.

        Raises
        ------
        AdmissionError
            There is no room; it stays.
        """
        old = self._model.get(row)
        if old is None or host not in self._home:
            return
        model, place = self._home[host]
        self._places.clear()
        spec = self._specs[row]
        if model is old:
            model.move(spec.name, place)
            return
        inputs, content = self._inputs(spec, host, overhead)
        inputs["used"] = int(old.vms.used[old.row(spec.name)])
        model.add(place, spec.name, content=content, **inputs)
        old.remove(spec.name)
        self._model[row], self._waited[row] = model, 0

    def step(self) -> list[tuple[int, int]]:
        """Let `step_ns` pass.

        Returns
        -------
        list of (int, int)
            Rows of machines, and how long their vCPUs waited for pages, in ns.
        """
        for row, growth in self._growth.items():
            model = self._model[row]
            at = model.row(self._specs[row].name)
            more = self._used[row] + growth * self.step_ns / SECOND
            self._used[row] = min(more, float(model.vms.memory[at]))
            model.vms.used[at] = int(self._used[row])
        self.now_ns += self.step_ns
        waits = []
        for model in self._models:
            if not model.names:
                model.now_ns += self.step_ns
                continue
            model.step(self.step_ns)
            total = model.vms.swap_wait_ns
            for at in np.flatnonzero(total).tolist():
                row = self._rows[model.names[at]]
                if total[at] > self._waited[row]:
                    waits.append((row, int(total[at]) - self._waited[row]))
                    self._waited[row] = int(total[at])
        return sorted(waits)

    def vm_samples(self, count: int) -> dict[str, Ints]:
        """Give the memory columns of `VM_COLUMNS` now, a number for each machine."""
        made = {name: np.zeros(count, np.int64) for name in COLUMNS}
        for number, model in enumerate(self._models):
            rows = self._places.get(number)
            if rows is None:
                rows = np.array([self._rows[name] for name in model.names], np.int64)
                self._places[number] = rows
            for name, column in COLUMNS.items():
                made[name][rows] = getattr(model.vms, column)
        return made

    def host_samples(self, count: int) -> dict[str, npt.NDArray[Any]]:
        """Give the memory columns of `HOST_COLUMNS` now."""
        made: dict[str, npt.NDArray[Any]] = {
            "total_pages": np.zeros(count, np.int64),
            "free_pages": np.zeros(count, np.int64),
            "memory_state": np.full(count, -1, np.int8),
        }
        for model in self._models:
            rows = [host for host, (mine, _) in self._home.items() if mine is model]
            made["total_pages"][rows] = model.hosts.total
            made["free_pages"][rows] = model.hosts.free
            made["memory_state"][rows] = model.hosts.state
        return made

    def check(self) -> None:
        """Add up all pages; raises AssertionError if one is missing or there twice."""
        for model in self._models:
            model.check()


def _load(spec: VMSpec) -> MemoryLoadSpec:
    return MemoryLoadSpec() if spec.workload is None else spec.workload.memory
