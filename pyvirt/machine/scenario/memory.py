"""The memory of all hosts of a scenario, stepped together."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from pyvirt.hostmem import HostMemory
from pyvirt.machine.memory import memory_inputs, policy_for
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
        Time between two steps.
    threads : int
        Hosts are divided among them.
    """

    def __init__(
        self,
        cluster: ClusterSpec,
        profiles: list[Profile],
        changes: MemoryPolicySpec,
        *,
        seed: int,
        step_ns: int,
        threads: int = 1,
    ) -> None:
        self.step_ns, self.now_ns, self._threads = step_ns, 0, threads
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
        load = _load(spec)
        profile, rules = self._profiles[host], self.rules[host]
        inputs = memory_inputs(spec, overhead, spec.tools, profile, rules)
        pages = inputs["memory"]
        content = {one.name: round(one.share * pages) for one in load.classes}
        content["zero"] = round(load.zero * pages)
        model.add(place, spec.name, content=content, **inputs)
        self._rows[spec.name], self._specs[row], self._model[row] = row, spec, model
        self._growth[row] = load.touch_rate / PAGE
        self._used[row] = float(inputs["used"])
        self._waited[row] = 0

    def remove(self, row: int) -> None:
        """Take a machine's memory from it."""
        if row in self._model:
            self._model.pop(row).remove(self._specs[row].name)
            del self._rows[self._specs[row].name], self._growth[row], self._used[row]
            del self._waited[row]

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
        if model is old:
            model.move(self._specs[row].name, place)
            return
        spec, used = self._specs[row], self._used[row]
        at = old.row(spec.name)
        touched = int(old.vms.used[at])
        inputs = memory_inputs(spec, overhead, spec.tools, self._profiles[host], self.rules[host])
        inputs["used"] = touched
        load = _load(spec)
        content = {one.name: round(one.share * inputs["memory"]) for one in load.classes}
        content["zero"] = round(load.zero * inputs["memory"])
        model.add(place, spec.name, content=content, **inputs)
        old.remove(spec.name)
        self._model[row], self._used[row], self._waited[row] = model, used, 0

    def step(self) -> list[tuple[int, int]]:
        """Let `step_ns` pass.

        Returns
        -------
        list of (int, int)
            Rows of machines, and how long their vCPUs waited for pages, in ns.
        """
        for row, growth in self._growth.items():
            if growth:
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
            model.step(self.step_ns, threads=self._threads)
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
        for model in self._models:
            rows = [self._rows[name] for name in model.names]
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
        for host, (model, at) in self._home.items():
            made["total_pages"][host] = model.hosts.total[at]
            made["free_pages"][host] = model.hosts.free[at]
            made["memory_state"][host] = int(model.states()[at])
        return made

    def check(self) -> None:
        """Add up all pages; raises AssertionError if one is missing or there twice."""
        for model in self._models:
            model.check()


def _load(spec: VMSpec) -> MemoryLoadSpec:
    return MemoryLoadSpec() if spec.workload is None else spec.workload.memory
