"""A result that is made by hand: three hosts, six virtual machines, 40 samples of 20 s.

No engine made it, but it keeps an engine's laws: of each virtual machine
run + ready + costop + limited + wait is its vCPUs' time; a host's CPU time is that of its virtual
machines, of migrations and of the console, and never exceeds what it has; its energy follows from
its utilisation; its free pages are what the virtual machines on it leave.
"""

from __future__ import annotations

import numpy as np

from pyvirt.cluster import HostState
from pyvirt.hostmem import MemoryState
from pyvirt.machine.scenario.result import (
    HOST_COLUMNS,
    VM_COLUMNS,
    VM_STATES,
    Event,
    Monitor,
    Result,
)
from pyvirt.spec import ClusterSpec, HostSpec, ScenarioSpec, VMSpec

SECOND = 10**9
STEP = 20 * SECOND
SAMPLES = 40
CPUS = 4
GIB_PAGES = 1 << 18
VCPUS = (2, 2, 1, 1, 4, 1)
NAMES = ("web", "db", "batch", "desk", "build", "old")
MODES = (
    ("HWMMU", "hardware", "nested", 0.012, 0.031),
    ("HWMMU", "hardware", "nested", 0.021, 0.055),
    ("PV", "paravirtual", "direct", 0.034, 0.018),
    ("BT", "binary-translation", "shadow", 0.118, 0.094),
    ("HWMMU", "hardware", "nested", 0.008, 0.044),
    ("BT", "binary-translation", "shadow", 0.201, 0.132),
)
EVENTS = {
    "hardware": {"page_fault": 900.0, "io": 5200.0, "interrupt": 3100.0},
    "paravirtual": {"page_fault": 4100.0, "page_table_update": 9000.0, "syscall": 700.0},
    "binary-translation": {"page_fault": 30000.0, "page_table_update": 12000.0, "syscall": 61000.0},
}
WATTS = np.linspace(150.0, 320.0, 11)
ON, OFF, DOWN = (VM_STATES.index(word) for word in ("on", "off", "down"))


def where(sample: int) -> tuple[list[int], list[int]]:
    """The host of each virtual machine at the end of a sample, and what it is doing."""
    host, state = [0, 1, 0, 1, 2, 1], [ON] * 6
    if sample < 2:
        host[5], state[5] = -1, OFF  # starts with the third sample
    if sample >= 8:
        host[0] = 2  # DRS moves web
    if sample >= 15:  # h1 fails: its machines are down for two samples, and start elsewhere
        down = sample < 17
        for vm, to in ((1, 0), (3, 2), (5, 0)):
            host[vm], state[vm] = (-1, DOWN) if down else (to, ON)
    if sample >= 25:  # h2 is emptied for standby
        host = [0 if on == ON else -1 for on in state]
    return host, state


def make_result(
    *,
    names: tuple[str, ...] = NAMES,
    hosts: tuple[str, ...] = ("h0", "h1", "h2"),
    seed: int = 7,
    warmup: str | int = "100s",
    load: float = 1.0,
) -> Result:
    """Make one; other seeds and loads give other times."""
    rng = np.random.default_rng(seed)
    cluster = ClusterSpec(
        hosts=[HostSpec(name, cpus=CPUS, memory="8GiB", power_w=WATTS.tolist()) for name in hosts],
        vms=[
            VMSpec(name, vcpus=vcpus, memory="2GiB")
            for name, vcpus in zip(names, VCPUS, strict=True)
        ],
        name="lab",
    )
    spec = ScenarioSpec(cluster, SAMPLES * STEP, "three hosts", warmup_ns=warmup, seed=seed)
    shape = (3, SAMPLES)
    host_rows = {column: np.zeros(shape, kind) for column, kind in HOST_COLUMNS.items()}
    vm_rows = {column: np.zeros((6, SAMPLES), kind) for column, kind in VM_COLUMNS.items()}
    for t in range(SAMPLES):
        _fill_vms(vm_rows, t, rng, load)
        _fill_hosts(host_rows, vm_rows, t)
    monitors = [
        Monitor(2 * STEP if vm == 5 else 0, name, hosts[h], *mode, EVENTS[mode[1]])
        for vm, (name, h, mode) in enumerate(zip(names, (0, 1, 0, 1, 2, 1), MODES, strict=True))
    ]
    again = [(8 * STEP + 5 * SECOND, 0, 2), *((17 * STEP, vm, to) for vm, to in ((1, 0), (3, 2)))]
    monitors += [Monitor(at, names[vm], hosts[h], *MODES[vm], {}) for at, vm, h in again]
    monitors.sort(key=lambda one: one.time_ns)
    return Result(
        spec,
        np.arange(1, SAMPLES + 1) * STEP,
        hosts,
        names,
        host_rows,
        vm_rows,
        tuple(monitors),
        _events(names, hosts),
        np.tile(WATTS, (3, 1)),
        np.full(3, CPUS * SECOND),
        {
            "version": "0.1.0.dev0",
            "seed": seed,
            "until_ns": SAMPLES * STEP,
            "mode": "demand",
            "presets": {"technique_data/bt-pentium4.toml": "ab" * 32},
            "scenario": spec.to_dict(),
        },
    )


def _fill_vms(rows: dict[str, np.ndarray], t: int, rng: np.random.Generator, load: float) -> None:
    host, state = where(t)
    demand = [load * VCPUS[vm] * STEP * rng.uniform(0.25, 0.9) for vm in range(6)]
    for h in range(3):
        wanted = sum(demand[vm] for vm in range(6) if host[vm] == h)
        most = 0.93 * CPUS * STEP  # the rest is for devices, migrations, the console
        for vm in range(6):
            if host[vm] == h:
                _fill_vm(
                    rows, vm, t, int(demand[vm] * min(1.0, most / max(wanted, 1.0))), demand[vm]
                )
    for vm in range(6):
        rows["state"][vm, t], rows["host"][vm, t] = state[vm], host[vm]
        if state[vm] == DOWN:
            rows["down_ns"][vm, t] = STEP


def _fill_vm(rows: dict[str, np.ndarray], vm: int, t: int, run: int, demand: float) -> None:
    time = VCPUS[vm] * STEP
    run = min(run, time)
    missing = min(int(demand) - run, time - run)
    parts = {"run_ns": run, "on_ns": STEP, "device_run_ns": run // 100}
    parts["costop_ns"] = missing // 5 if VCPUS[vm] > 1 else 0
    parts["limited_ns"] = missing // 4 if vm == 2 else 0
    parts["ready_ns"] = missing - parts["costop_ns"] - parts["limited_ns"]
    parts["wait_ns"] = time - run - missing
    parts["swap_wait_ns"] = parts["wait_ns"] // 8 if t >= 25 and vm in (4, 5) else 0
    parts["idle_ns"] = parts["wait_ns"] - parts["swap_wait_ns"]
    overhead = MODES[vm][3] + MODES[vm][4]
    parts["overhead_ns"] = int(run * overhead / (1 + overhead))
    pages = 2 * GIB_PAGES
    parts["balloon_pages"] = pages // 8 if t >= 25 else 0
    parts["compressed_pages"] = pages // 64 if t >= 25 else 0
    parts["swapped_pages"] = pages // 16 if t >= 27 and vm in (4, 5) else 0
    parts["mapped_pages"] = (
        pages * 3 // 4 - parts["balloon_pages"] - parts["compressed_pages"] - parts["swapped_pages"]
    )
    parts["shared_pages"] = pages // 10
    parts["granted_pages"] = parts["mapped_pages"] - pages // 20
    parts["active_pages"] = pages // 3
    if (vm, t) == (0, 8) or (t == 25 and vm in (0, 3, 4)):
        parts["stunned_ns"] = 400_000_000 if t == 8 else 100_000_000
    for column, value in parts.items():
        rows[column][vm, t] = value


def _fill_hosts(rows: dict[str, np.ndarray], vms: dict[str, np.ndarray], t: int) -> None:
    for h in range(3):
        state = HostState.ON
        if h == 1 and t >= 15:
            state = HostState.FAILED
        if h == 2 and 27 <= t < 36:
            state = HostState.STANDBY
        rows["state"][h, t], rows["total_pages"][h, t] = state, 7 * GIB_PAGES
        rows["memory_state"][h, t] = MemoryState.HIGH
        if state != HostState.ON:
            rows["joules"][h, t] = 0.0 if state == HostState.FAILED else 6.0 * 20
            rows["free_pages"][h, t] = 7 * GIB_PAGES
            continue
        here = vms["host"][:, t] == h
        rows["vms"][h, t], rows["on_ns"][h, t] = here.sum(), STEP
        rows["console_ns"][h, t] = CPUS * STEP // 200
        rows["migration_ns"][h, t] = STEP // 10 if t == 8 and h != 1 else 0
        run = vms["run_ns"][here, t].sum() + vms["device_run_ns"][here, t].sum()
        run += rows["console_ns"][h, t] + rows["migration_ns"][h, t]
        rows["run_ns"][h, t] = run
        used = vms["granted_pages"][here, t].sum() + GIB_PAGES // 4
        rows["free_pages"][h, t] = max(0, 7 * GIB_PAGES - used)
        free = rows["free_pages"][h, t] / (7 * GIB_PAGES)
        levels = (0.06, 0.04, 0.02, 0.01)
        rows["memory_state"][h, t] = sum(free < level for level in levels)
        tenths = np.linspace(0, 1, 11)
        rows["joules"][h, t] = 20 * np.interp(run / (CPUS * STEP), tenths, WATTS)


def _events(names: tuple[str, ...], hosts: tuple[str, ...]) -> tuple[Event, ...]:
    made = [Event(0, "power-on", names[vm], hosts[h]) for vm, h in enumerate((0, 1, 0, 1, 2))]
    made.append(Event(2 * STEP, "power-on", names[5], hosts[1]))
    made.append(Event(8 * STEP + 5 * SECOND, "migrated", names[0], hosts[0], hosts[2], "DRS", 4e8))
    made.append(Event(15 * STEP, "host-failed", "", hosts[1], text="fault"))
    made += [
        Event(17 * STEP, "restarted", names[vm], hosts[to], text="HA", value=2.0 * STEP)
        for vm, to in ((1, 0), (3, 2), (5, 0))
    ]
    made += [
        Event(25 * STEP + SECOND, "migrated", names[vm], hosts[2], hosts[0], "DPM", 1e8)
        for vm in (0, 3, 4)
    ]
    made.append(Event(27 * STEP, "standby-entered", "", hosts[2], text="DPM"))
    made.append(Event(36 * STEP, "standby-left", "", hosts[2], text="DPM"))
    return tuple(made)
