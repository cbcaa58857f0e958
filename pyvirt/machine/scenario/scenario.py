"""A described system that can be run."""

from __future__ import annotations

import os
from collections.abc import Callable
from os import PathLike
from typing import Any

import numpy as np

from pyvirt.errors import InvalidTypeError, InvalidValueError
from pyvirt.machine.scenario.checkpoint import Checkpoint
from pyvirt.machine.scenario.engine import Engine
from pyvirt.machine.scenario.guests import derived
from pyvirt.machine.scenario.provenance import provenance
from pyvirt.machine.scenario.result import Result
from pyvirt.spec import ScenarioSpec, load_scenario
from pyvirt.units import parse_time

__all__ = ["Scenario"]


class Scenario:
    """A described system that can be run: hosts, machines, policies, faults, operators.

    Parameters
    ----------
    spec : ScenarioSpec
        The description.
    base : path, optional
        The folder to which the description's files are relative; default: the present one.

    Notes
    -----
    Requests to disks and networks cost the CPU time of their device worlds; a guest waits for those
    of its ``think_ns`` alone.
    """

    def __init__(self, spec: ScenarioSpec, base: str | PathLike[str] = "") -> None:
        if not isinstance(spec, ScenarioSpec):
            raise InvalidTypeError(f"spec must be a ScenarioSpec, got {spec!r:.80}")
        self.spec, self.base = spec, os.fspath(base)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Scenario:
        """Read a scenario from a file, as `pyvirt.spec.load_scenario`."""
        return cls(load_scenario(path), os.path.dirname(os.fspath(path)))

    def replace(self, **changes: Any) -> Scenario:
        """Give the same scenario with other values in some fields of its description."""
        return Scenario(self.spec.replace(**changes), self.base)

    def run(
        self,
        until: int | str | None = None,
        seed: int | None = None,
        *,
        threads: int = 1,
        checkpoint: str | PathLike[str] | Checkpoint | None = None,
        tell: Callable[[int], Any] | None = None,
    ) -> Result:
        """Run from the start, each time anew.

        Parameters
        ----------
        until : int or str, optional
            ns, or text as ``"10s"``; at most the scenario's duration, the default.
        seed : int, optional
            In place of the scenario's.
        threads : int, default 1
            In which hosts run; the result is the same for any number.
        checkpoint : path or Checkpoint, optional
            A file in which the run is kept. If there is one, it goes on from there, and comes to
            the same result; at the end it is removed.
        tell : callable, optional
            Is called with the present time in ns, now and then.

        Returns
        -------
        Result

        Raises
        ------
        InvalidValueError, InvalidTypeError
            For arguments that cannot be.
        MonitorModeError
            A virtual machine cannot be executed on its host.
        OutputError
            The checkpoint cannot be written.
        """
        if checkpoint is None:
            engine = self.engine(until, seed, threads=threads)
            engine.run(engine.until, tell)
            return self.result(engine)
        kept = checkpoint if isinstance(checkpoint, Checkpoint) else Checkpoint(checkpoint)
        found = kept.load(self.spec, self._seed(seed), self._end(until))
        engine = self.engine(until, seed, threads=threads) if found is None else found

        def watch(now: int) -> None:
            kept.keep(engine, self.spec)
            if tell is not None:
                tell(now)

        engine.run(engine.until, watch)
        result = self.result(engine)
        kept.remove()
        return result

    def replicate(
        self,
        count: int | None = None,
        until: int | str | None = None,
        seed: int | None = None,
        *,
        threads: int = 1,
        tell: Callable[[int], Any] | None = None,
    ) -> list[Result]:
        """Run several times, each with a seed of its own; the first has that of `run`.

        Parameters
        ----------
        count : int, optional
            Default: the scenario's ``replications``.
        until, seed, threads, tell
            As for `run`; `tell` is called with the time of all runs together.
        """
        times: Any = self.spec.replications if count is None else count
        if isinstance(times, bool) or not isinstance(times, (int, np.integer)) or times < 1:
            raise InvalidValueError(f"count must be an integer >= 1, got {times!r:.80}")
        first, end = self._seed(seed), self._end(until)
        made = []
        for at in range(int(times)):
            own = first if at == 0 else derived(first, f"replication {at}")

            def watch(now: int, before: int = at * end) -> None:
                if tell is not None:
                    tell(before + now)

            made.append(self.run(end, own, threads=threads, tell=watch))
        return made

    def under(self, hypervisor: str) -> Scenario:
        """Give the same scenario with another hypervisor on all hosts."""
        return Scenario(self.spec.under(hypervisor), self.base)

    def engine(
        self, until: int | str | None = None, seed: int | None = None, *, threads: int = 1
    ) -> Engine:
        """Make an engine that stands at the start; arguments are those of `run`."""
        first = self._seed(seed)
        many: Any = threads
        if isinstance(many, bool) or not isinstance(many, (int, np.integer)) or many < 1:
            raise InvalidValueError(f"threads must be an integer >= 1, got {many!r:.80}")
        return Engine(self.spec, first, self._end(until), int(many), self.base)

    def result(self, engine: Engine) -> Result:
        """Give what happened up to the last sample of an engine of this scenario."""
        system = engine.system
        system.finish()
        hosts, vms = engine.record.arrays()
        cluster = system.cluster
        return Result(
            self.spec,
            np.array(engine.record.times, np.int64),
            system.host_names,
            system.vm_names,
            hosts,
            vms,
            tuple(system.monitors),
            tuple(system.events),
            cluster.power_tables[cluster.hosts.power],
            system.fleet.capacity_ns,
            provenance(self.spec, system.seed, engine.until),
        )

    def _seed(self, seed: int | None) -> int:
        first: Any = self.spec.seed if seed is None else seed
        if isinstance(first, bool) or not isinstance(first, (int, np.integer)) or first < 0:
            raise InvalidValueError(f"seed must be an integer >= 0, got {first!r:.80}")
        return int(first)

    def _end(self, until: int | str | None) -> int:
        longest = self.spec.duration_ns
        end: Any = parse_time(until, "until") if isinstance(until, str) else until
        end = longest if end is None else end
        if isinstance(end, bool) or not isinstance(end, (int, np.integer)):
            raise InvalidTypeError(f"until must be ns or text, got {until!r:.80}")
        if not 1 <= end <= longest:
            raise InvalidValueError(f"until must be in [1, {longest}], got {end}")
        return int(end)
