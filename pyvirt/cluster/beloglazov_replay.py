"""Replay of a day under Beloglazov and Buyya's consolidation policies."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from pyvirt.cluster.beloglazov_records import (
    HOST,
    MIGRATION,
    POLICIES,
    RUN,
    SELECTIONS,
    STEP,
    VM,
)
from pyvirt.cluster.beloglazov_setup import Corrections, ReplaySetup
from pyvirt.cluster.columns import ClusterError
from pyvirt.errors import InvalidTypeError, InvalidValueError

__all__ = ["ReplayRecord", "ReplayResult", "beloglazov"]

Floats = npt.NDArray[np.float64]

DEFAULTS = {"thr": 0.8, "iqr": 1.5, "mad": 2.5, "lr": 1.2, "lrr": 1.2}
WINDOW = 30  # utilisations that a VM's history holds
LINE = 10  # of them, what the regressions look at
LIST_FULL, MIGRATIONS_FULL, NO_HOST = 1, 2, 3


@dataclass(frozen=True)
class ReplayRecord:
    """What happened in a replay, step by step.

    Attributes
    ----------
    steps : structured ndarray
        For each step `time_s`, `hosts_on` (used at its start), `energy_kwh` up to it,
        `migrations` begun in it, `vms` that are not finished.
    migrations : structured ndarray
        `time_s` at which each began, `vm`, `source`, `destination`, in order.
    utilisation : ndarray of float64, shape (steps, hosts)
        Used over capacity, when the migrations of the step have begun.
    placement : ndarray of int64, shape (VMs,)
        The host on which each VM was created.
    """

    steps: npt.NDArray[Any]
    migrations: npt.NDArray[Any]
    utilisation: Floats
    placement: npt.NDArray[np.int64]


@dataclass(frozen=True)
class ReplayResult:
    """The figures of a replay, as CloudSim 3.0.3 defines them; fractions of one, not percent.

    Attributes
    ----------
    energy_kwh : float
        Energy of all hosts.
    migrations : int
        Migrations begun.
    slatah : float
        Overload time of all hosts over their time on.
    pdm : float
        Part of the demand that migrations cost: what was missing during them over all demand.
    slav : float
        `slatah` times `pdm`.
    sla_overall : float
        Part of the demand that was not granted.
    sla_average : float
        Mean of the fractions that were missing, over the intervals in which something was.
    host_shutdowns : int
        How often a host went from on to off; one that is never used counts once.
    mean_time_before_host_shutdown_s, stdev_time_before_host_shutdown_s : float
        Time since it was switched on; the deviation is that of a sample. NaN for want of any.
    mean_time_before_vm_migration_s, stdev_time_before_vm_migration_s : float
        See `Corrections.migration_intervals`: by default the time that a migration takes.
    vms_left : int
        VMs that were not regarded as finished.
    hosts_in_use_at_end : int
        Hosts that hold VMs.
    record : ReplayRecord or None
        Step by step, where that was asked for.
    """

    energy_kwh: float
    migrations: int
    slatah: float
    pdm: float
    slav: float
    sla_overall: float
    sla_average: float
    host_shutdowns: int
    mean_time_before_host_shutdown_s: float
    stdev_time_before_host_shutdown_s: float
    mean_time_before_vm_migration_s: float
    stdev_time_before_vm_migration_s: float
    vms_left: int
    hosts_in_use_at_end: int
    record: ReplayRecord | None = None

    def as_dict(self) -> dict[str, float]:
        """Give the figures by name."""
        return {
            field.name: getattr(self, field.name)
            for field in fields(self)
            if field.name != "record"
        }


def beloglazov(
    util: npt.ArrayLike,
    policy: str = "thr",
    selection: str = "mmt",
    parameter: float | None = None,
    *,
    fidelity: Literal["cloudsim303", "corrected"] = "cloudsim303",
    corrections: Corrections | None = None,
    setup: ReplaySetup | None = None,
    rng: int | np.random.Generator | None = None,
    record: bool = False,
) -> ReplayResult:
    """Replay a day of demand under a consolidation policy of Beloglazov and Buyya.

    Each 300 s, VMs leave hosts that are overloaded, or said to become so, for the host whose power
    rises least; then the least used hosts are emptied, if others can take all their VMs.

    Parameters
    ----------
    util : array_like of real, shape (VMs, samples)
        CPU utilisation in percent of each VM, one sample per 300 s from 0 s.
    policy : {"npa", "dvfs", "thr", "iqr", "mad", "lr", "lrr"}, default "thr"
        When a host is overloaded: never, and all hosts draw their full power (non power aware);
        never; above a fixed threshold; above one that sinks with the interquartile range or the
        median absolute deviation of its history; if a local regression, or its robust form,
        forecasts it.
    selection : {"mmt", "mu", "rs", "mc"}, default "mmt"
        Which VM leaves: that of the shortest migration, of the least utilisation, a random one,
        that of the highest multiple correlation with the others. Nothing for NPA and DVFS.
    parameter : float, optional
        The threshold of THR (default 0.8) or the safety parameter s: of IQR 1.5, MAD 2.5, LR and
        LRR 1.2. NPA and DVFS have none.
    fidelity : {"cloudsim303", "corrected"}, default "cloudsim303"
        As CloudSim 3.0.3 computes it, to the last bit of each decision; or with its faults
        repaired.
    corrections : Corrections, optional
        Which ones, for ``"corrected"``; by default all.
    setup : ReplaySetup, optional
        Hosts and VM types; by default those of the PlanetLab experiments.
    rng : int or numpy.random.Generator, optional
        Seed or generator for ``"rs"``, where it must be given.
    record : bool, default False
        Whether to keep what happened at each step.

    Returns
    -------
    ReplayResult

    Raises
    ------
    InvalidValueError, InvalidTypeError
        An argument that is not accepted, a utilisation that is no percentage.
    ClusterError
        A VM that no host can take when it is created.

    Notes
    -----
    The GIL is released meanwhile, so threads can replay several days at once. The first call of a
    process loads the compiled kernels; the first call ever compiles them.

    References
    ----------
    A. Beloglazov, R. Buyya, "Optimal online deterministic algorithms and adaptive heuristics for
    energy and performance efficient dynamic consolidation of virtual machines in cloud data
    centers", Concurrency and Computation 24(13), 2012. The faithful mode follows what CloudSim
    3.0.3 does in these experiments, which differs from the paper; see the guide.

    Examples
    --------
    Three VMs whose demand varies, on four hosts:

    >>> from pyvirt.cluster import ReplaySetup, beloglazov
    >>> day = [[20, 90, 30, 10], [10, 80, 20, 30], [50, 70, 10, 10]]
    >>> result = beloglazov(day, "thr", "mmt", setup=ReplaySetup.planetlab(hosts=4))
    >>> result.migrations, result.hosts_in_use_at_end
    (3, 1)
    """
    setup = ReplaySetup.planetlab() if setup is None else setup
    if not isinstance(setup, ReplaySetup):
        raise InvalidTypeError(f"setup must be a ReplaySetup, got {setup!r:.80}")
    percent = _percent(util)
    run = np.zeros(1, dtype=RUN)
    _policy(run, policy, selection, parameter)
    _fidelity(run, fidelity, corrections)
    if run["selection"][0] == SELECTIONS["rs"] and run["policy"][0] >= POLICIES["thr"]:
        run["state"] = _seed(rng)
    run["record"] = bool(record)
    run["speed"] = setup.migration_mb_s
    return _replay(percent, run, setup)


def _percent(util: npt.ArrayLike) -> Floats:
    array = np.asarray(util)
    if array.dtype.kind not in "iuf":
        raise InvalidTypeError(f"util must be numbers, got dtype {array.dtype}")
    if array.ndim != 2 or array.shape[0] < 1 or array.shape[1] < 2:
        raise InvalidValueError(
            f"util must have a row for each VM and at least two samples, got shape {array.shape}"
        )
    bad = ~((array >= 0) & (array <= 100))
    if bad.any():
        vm, sample = (int(x) for x in np.argwhere(bad)[0])
        raise InvalidValueError(
            f"util row {vm}, sample {sample}: must be 0 to 100 percent, got {array[vm, sample]}"
        )
    return array.astype(np.float64)


def _choice(value: str, name: str, accepted: dict[str, int]) -> int:
    if value not in accepted:
        raise InvalidValueError(f"{name} must be one of {', '.join(accepted)}, got {value!r:.80}")
    return accepted[value]


def _policy(run: npt.NDArray[Any], policy: str, selection: str, parameter: float | None) -> None:
    run["policy"] = _choice(policy, "policy", POLICIES)
    run["selection"] = _choice(selection, "selection", SELECTIONS)
    if policy not in DEFAULTS:
        if parameter is not None:
            raise InvalidValueError(f"{policy} has no parameter, got {parameter!r:.80}")
        return
    value = DEFAULTS[policy] if parameter is None else parameter
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise InvalidTypeError(f"parameter must be a number, got {value!r:.80}")
    if not (math.isfinite(value) and value >= 0):
        raise InvalidValueError(f"parameter must not be negative, got {value!r}")
    run["parameter"] = value


def _fidelity(run: npt.NDArray[Any], fidelity: str, corrections: Corrections | None) -> None:
    if fidelity not in ("cloudsim303", "corrected"):
        raise InvalidValueError(
            f"fidelity must be 'cloudsim303' or 'corrected', got {fidelity!r:.80}"
        )
    if fidelity == "cloudsim303":
        if corrections is not None:
            raise InvalidValueError("corrections need fidelity='corrected', got 'cloudsim303'")
        return
    corrections = Corrections.every() if corrections is None else corrections
    if not isinstance(corrections, Corrections):
        raise InvalidTypeError(f"corrections must be Corrections, got {corrections!r:.80}")
    for field in fields(corrections):
        run[field.name] = bool(getattr(corrections, field.name))


def _seed(rng: int | np.random.Generator | None) -> int:
    if rng is None:
        raise InvalidValueError("selection 'rs' draws at random: rng must be given, got None")
    if isinstance(rng, (int, np.integer)) and not isinstance(rng, bool):
        if rng < 0:
            raise InvalidValueError(f"rng must not be negative, got {rng}")
        rng = np.random.default_rng(rng)
    if not isinstance(rng, np.random.Generator):
        raise InvalidTypeError(f"rng must be a seed or a numpy Generator, got {rng!r:.80}")
    return int(rng.integers(0, 1 << 63, dtype=np.uint64, endpoint=True))


def _curves(setup: ReplaySetup) -> Floats:
    """For each type of hosts: watts, a tenth of their rise, and the tenths of one."""
    curve = np.zeros((len(setup.host_types), 3, 11))
    for kind, host in enumerate(setup.host_types):
        curve[kind, 0] = host.power.watts
        curve[kind, 1, :10] = np.diff(curve[kind, 0]) / 10
        curve[kind, 2] = np.arange(11) / 10
    return curve


def _regression(weighted: bool) -> tuple[Floats, Floats]:
    """Weights of ten values, oldest first, and what each of them adds to the forecast."""
    x = np.arange(1.0, LINE + 1)
    weights = np.ones(LINE)
    if weighted:  # tricube, Cleveland 1979
        far = (LINE - x) / (LINE - 1)
        weights = 1 - far * far * far
        weights = weights * weights * weights
    part = weights / weights.sum()
    middle = float(part @ x)
    spread = float(part @ (x - middle) ** 2)
    return weights, part * (1 + (x - middle) * (LINE + 1 - middle) / spread)


def _hosts(setup: ReplaySetup, curve: Floats, charged: bool) -> npt.NDArray[Any]:
    kinds = setup.kinds_of_hosts()
    hosts = np.zeros(setup.hosts, dtype=HOST)
    core = np.array([float(host.core_mips) for host in setup.host_types])
    total = np.array([int(host.cores) * float(host.core_mips) for host in setup.host_types])
    memory = np.array([float(host.memory_mb) for host in setup.host_types])
    hosts["kind"] = kinds
    hosts["core"] = core[kinds]
    hosts["total"] = hosts["free"] = total[kinds]
    hosts["memory"] = memory[kinds]
    hosts["power"] = curve[kinds, 0, 0]
    hosts["charge"] = 0.0 if charged else hosts["power"]
    hosts["when"] = -1.0
    hosts["was_active"] = 1
    return hosts


def _replay(percent: Floats, run: npt.NDArray[Any], setup: ReplaySetup) -> ReplayResult:
    from pyvirt.cluster.kernels.beloglazov import replay

    count, samples = percent.shape
    kinds = setup.kinds_of_vms(count)
    mips = np.array([float(vm.mips) for vm in setup.vm_types])[kinds]
    memory = np.array([float(vm.memory_mb) for vm in setup.vm_types])[kinds]
    fractions = np.empty((samples + 1, count))
    np.divide(percent.T, 100, out=fractions[:-1])
    fractions[-1] = fractions[-2]
    curve = _curves(setup)
    policy = int(run["policy"][0])
    weighted = bool(run["weighted_regression"][0])
    work = np.zeros((7, 36, 36))
    work[0, 0, :LINE], work[1, 0, :LINE] = _regression(weighted)
    plans = policy >= POLICIES["thr"]
    correlated = plans and run["selection"][0] == SELECTIONS["mc"]
    values = policy in (POLICIES["iqr"], POLICIES["mad"]) or (
        policy == POLICIES["lrr"] and weighted
    )
    record = bool(run["record"][0])
    steps = np.zeros(samples - 1 if record else 0, dtype=STEP)
    utilisation = np.zeros((len(steps), setup.hosts))
    placement = np.zeros(count, dtype=np.int64)
    used = np.zeros((count, samples - 1 if plans else 0))
    use = np.zeros((count, samples - 1 if correlated else 0))
    past = np.zeros((setup.hosts, WINDOW if values else 0))
    width, room = min(count, 64) + 1, 32 * count if record and plans else 0
    fresh = run.copy()
    while True:
        run = fresh.copy()
        hosts = _hosts(setup, curve, bool(run["destination_power"][0]))
        vms = np.zeros(count, dtype=VM)
        vms["mips"] = mips
        vms["memory"] = memory
        vms["alive"] = 1
        vms["when"] = -1.0
        run["alive"] = count
        run["step"] = -1
        member = np.zeros((setup.hosts, width), dtype=np.int64)
        migrations = np.zeros(room, dtype=MIGRATION)
        replay(
            run, hosts, vms, member, mips, fractions, used, use, past, curve, work,
            steps, utilisation, migrations, placement,
        )  # fmt: skip
        status = int(run["status"][0])
        if status == LIST_FULL:
            width *= 2
        elif status == MIGRATIONS_FULL:
            room *= 2
        else:
            break
    if status == NO_HOST:
        vm = int(run["culprit"][0])
        raise ClusterError(
            f"util row {vm}: no host can take a VM of {mips[vm]:g} MIPS and {memory[vm]:g} MB; "
            f"there are {setup.hosts} hosts and {count} VMs"
        )
    kept = ReplayRecord(
        steps, migrations[: int(run["migrations"][0])].copy(), utilisation, placement
    )
    return _result(run[0], hosts, vms, kept if record else None)


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _spread(count: int, mean: float, square: float) -> tuple[float, float]:
    """Mean and standard deviation of a sample, NaN for want of values."""
    return (
        mean if count else math.nan,
        math.sqrt(square / (count - 1)) if count > 1 else math.nan,
    )


def _result(
    run: Any, hosts: npt.NDArray[Any], vms: npt.NDArray[Any], record: ReplayRecord | None
) -> ReplayResult:
    asked, given = float(vms["asked"].sum()), float(vms["given"].sum())
    slatah = _ratio(float(hosts["over_s"].sum()), float(hosts["on_s"].sum()))
    pdm = _ratio(float(vms["lost"].sum()), asked)
    down = _spread(int(run["downs"]), float(run["down_mean"]), float(run["down_square"]))
    trip = _spread(int(run["trips"]), float(run["trip_mean"]), float(run["trip_square"]))
    return ReplayResult(
        energy_kwh=float(run["energy"]) / 3.6e6,
        migrations=int(run["migrations"]),
        slatah=slatah,
        pdm=pdm,
        slav=slatah * pdm,
        sla_overall=_ratio(asked - given, asked),
        sla_average=_ratio(float(vms["short"].sum()), float(vms["short_count"].sum())),
        host_shutdowns=int(run["downs"]),
        mean_time_before_host_shutdown_s=down[0],
        stdev_time_before_host_shutdown_s=down[1],
        mean_time_before_vm_migration_s=trip[0],
        stdev_time_before_vm_migration_s=trip[1],
        vms_left=int(run["alive"]),
        hosts_in_use_at_end=int((hosts["count"] > 0).sum()),
        record=record,
    )
