"""The Service Console: a CPU share and memory of its own, and the devices that it serves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pyvirt.errors import InvalidTypeError, InvalidValueError
from pyvirt.machine.loads import CONSOLE_DEVICES, device_table

if TYPE_CHECKING:
    from pyvirt.sched import Scheduler

__all__ = ["ServiceConsole"]

SECOND = 1_000_000_000
#: Requests that came meanwhile are handed over so often.
PERIOD_NS = 100_000_000


class ServiceConsole:
    """The console of a host: one world on its first CPU, which serves CD, USB, serial and floppy.

    Critical devices (disks, networks) are the VMkernel's own; requests to these others wait for
    the console, whose CPU time competes with that of the virtual machines.

    Parameters
    ----------
    scheduler : Scheduler
        The host's.
    mhz : float
        Speed of a CPU.
    cpu_mhz : float
        What it is given at least, for policies that know reservations.
    memory : int
        Bytes.
    weight : int
        Shares.

    Attributes
    ----------
    world : int
        Its number in the scheduler.
    requests : dict of (str, str) to float
        Requests handed over so far, by machine and device.

    Notes
    -----
    Requests come at a rate and are handed over each 100 ms, as one job; what they take is in
    ``device_data/devices.toml``.
    """

    def __init__(
        self, scheduler: Scheduler, mhz: float, cpu_mhz: float, memory: int, weight: int
    ) -> None:
        from pyvirt.sched import Jobs

        reservation = round(cpu_mhz / mhz * SECOND) if scheduler.policy == "esx" else None
        vm = scheduler.add_vm(1, Jobs(), weight=weight, reservation=reservation, affinity=[0])
        self.world: int = vm.worlds[0]
        self.cpu_mhz, self.memory, self.mhz = cpu_mhz, memory, mhz
        self.requests: dict[tuple[str, str], float] = {}
        self._rates: dict[tuple[str, str], float] = {}
        self._rest = 0.0

    @property
    def attached(self) -> dict[tuple[str, str], float]:
        """Requests a second, by machine and device."""
        return dict(self._rates)

    def attach(self, vm: str, device: str, requests_per_s: float | None = None) -> None:
        """Serve a device of a virtual machine.

        Parameters
        ----------
        vm : str
            Its name.
        device : {"cd", "usb", "serial", "floppy"}
            What it is.
        requests_per_s : float, optional
            Default: that of the table.
        """
        if device not in CONSOLE_DEVICES:
            raise InvalidValueError(
                f"device must be one of {', '.join(CONSOLE_DEVICES)}, got {device!r:.80}"
            )
        rate: Any = requests_per_s
        if rate is None:
            rate = device_table()["console"][device]["requests_per_s"]
        if isinstance(rate, bool) or not isinstance(rate, (int, float)):
            raise InvalidTypeError(f"requests_per_s must be a number, got {rate!r:.80}")
        if not 0 <= rate <= 1e9:
            raise InvalidValueError(f"requests_per_s must be in [0, 1e9], got {rate!r:.80}")
        self._rates[vm, device] = float(rate)

    def detach(self, vm: str, device: str | None = None) -> None:
        """Serve a device, or all devices, of a virtual machine no longer."""
        self._rates = {
            key: rate
            for key, rate in self._rates.items()
            if key[0] != vm or device not in (None, key[1])
        }

    def load_mhz(self) -> float:
        """Give what the devices that are attached want of the CPU."""
        table = device_table()["console"]
        return (
            sum(rate * table[device]["cycles"] for (_, device), rate in self._rates.items()) / 1e6
        )

    def hand_over(self, scheduler: Scheduler) -> None:
        """Bring the requests of a period; the `VMkernel` calls it at each end of one."""
        table = device_table()["console"]
        cycles = 0.0
        for key, rate in self._rates.items():
            count = rate * PERIOD_NS / SECOND
            self.requests[key] = self.requests.get(key, 0.0) + count
            cycles += count * table[key[1]]["cycles"]
        self._rest += cycles * 1000 / self.mhz  # ns
        whole = int(self._rest)
        if whole:
            self._rest -= whole
            scheduler.submit(self.world, whole)
