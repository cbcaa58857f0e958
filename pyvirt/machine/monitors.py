"""How a host executes virtual machines: the mode of each, and what that costs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pyvirt.errors import InvalidValueError, PowerStateError
from pyvirt.machine import loads
from pyvirt.machine.claims import memory_claim
from pyvirt.machine.modes import MonitorMode, Processor, Selection, family, select_mode
from pyvirt.machine.profile import Profile
from pyvirt.machine.techniques import EventCosts, cost_table, execution
from pyvirt.machine.vm import VM
from pyvirt.machine.vmm import VMM
from pyvirt.spec import HostSpec, VMSpec

__all__ = ["Monitors"]


class Monitors:
    """Makes the monitors of a host.

    Parameters
    ----------
    spec : HostSpec
        The host.
    profile : Profile
        Its hypervisor.
    seed : int
        Of address streams that have none of their own.
    tlb : str
        The processor's TLBs, for the overhead of translation.
    event_costs : mapping of MonitorMode to str or EventCosts, optional
        Cost tables in place of the defaults.

    Attributes
    ----------
    processor : Processor
        What matters of the host's for monitor modes.
    """

    def __init__(
        self,
        spec: HostSpec,
        profile: Profile,
        *,
        seed: int = 0,
        tlb: str = "skylake-sp",
        event_costs: Mapping[MonitorMode, Any] | None = None,
    ) -> None:
        self._spec, self._profile, self._seed, self._tlb = spec, profile, seed, tlb
        self._event_costs = dict(event_costs or {})
        self._tables: dict[MonitorMode, EventCosts] = {}
        self.processor = Processor(
            spec.vendor,
            hardware=True,
            nested_paging=spec.ept,
            enabled=spec.virtualization_enabled,
            name="nehalem" if spec.ept else "core2-45nm",
        )

    def check(self, spec: VMSpec, state: str) -> None:
        """Refuse a machine that the hypervisor cannot have, or that needs what the host lacks.

        Parameters
        ----------
        spec : VMSpec
            The machine.
        state : str
            What the host is doing; only one that is on takes machines.

        Raises
        ------
        PowerStateError, InvalidValueError
            With what is wrong.
        """
        host = self._spec
        if state != "on":
            raise PowerStateError(f"host {host.name!r:.80} is {state} and runs no VMs")
        if spec.vcpus > host.cpus:
            raise InvalidValueError(
                f"vcpus of VM {spec.name!r:.80} must be at most the {host.cpus} CPUs of "
                f"host {host.name!r:.80}, got {spec.vcpus}"
            )
        self._profile.check(spec)
        for what in ("features", "datastores", "networks"):
            there = getattr(host, what)
            missing = [one for one in getattr(spec, what) if one not in there]
            if missing:
                raise InvalidValueError(
                    f"{what} of VM {spec.name!r:.80} must be among those of host "
                    f"{host.name!r:.80}, got {missing[0]!r:.80}"
                )

    def make(self, machine: VM) -> VMM:
        """Choose a machine's mode and price it; with the memory to set aside, if it has any.

        Raises
        ------
        MonitorModeError
            It cannot be executed here.
        """
        spec = machine.spec
        selection = self._select(spec)
        mode, work = selection.mode, spec.workload
        costs = self._costs(mode)
        translation = None
        if work is not None and work.addresses is not None:
            from pyvirt.machine.streams import described
            from pyvirt.machine.translation import measure

            translation = measure(
                described(spec, self._seed),
                mode,
                self._spec.mhz,
                accesses_per_s=work.addresses.accesses_per_s,
                agile=spec.mmu == "agile",
                tlb=self._tlb,
                backing="2M" if spec.large_pages and self._profile["memory.large_pages"] else "4K",
                policy="trace" if self._spec.hypervisor == "esxi" else "unsync",
                event_costs=costs if mode is MonitorMode.PV else None,
            )
        program, cycles = None, 0.0
        if work is not None and work.guest is not None:
            from pyvirt.machine.programs import execute

            priced, program, cycles = execute(spec, mode, costs, self._spec.mhz)
        else:
            priced = execution(
                loads.event_rates(work),
                mode,
                self._spec.mhz,
                costs=costs,
                memory=translation is None,
                tools=spec.tools,
            )
        made = VMM(
            machine, selection, priced, translation, self._spec.mhz, seed=self._seed, costs=costs
        )
        made.program, made.program_cycles = program, cycles
        made.memory_reserved, made.memory_overhead = self.memory_needed(spec, mode)
        return made

    def _costs(self, mode: MonitorMode) -> EventCosts:
        """Read a cost table once."""
        if mode not in self._tables:
            self._tables[mode] = cost_table(mode, self._event_costs.get(mode))
        return self._tables[mode]

    def _select(self, spec: VMSpec) -> Selection:
        kind = self._profile.guest(spec)
        guest = family(spec.guest_os, spec.bits, paravirtual=spec.exec == "paravirtual")
        return select_mode(
            guest,
            self.processor,
            exec=spec.exec,
            mmu=spec.mmu,
            modes=[MonitorMode[name] for name in kind.modes],
            vm=spec.name,
            host=self._spec.name,
        )

    def memory_needed(self, spec: VMSpec, mode: MonitorMode) -> tuple[int, int]:
        """Give what must be set aside, and what of it is the monitor's."""
        if not self._spec.memory:
            return 0, 0
        from pyvirt.machine.memory import overhead_bytes

        overhead = overhead_bytes(spec, mode)
        claim = memory_claim(self._profile, spec)
        whole = not self._profile["memory.overcommit"]
        return (claim.startup if whole else claim.minimum) + overhead, overhead
