"""``pyvirt cluster``: what a cluster would do, from its description."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table

from pyvirt.cli.terminal import print_table

if TYPE_CHECKING:
    from pyvirt.cluster import Cluster

__all__ = ["cluster"]

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
OUTPUT = click.Path(dir_okay=False, writable=True, path_type=Path)
MINUTE = 60 * 10**9


@click.group()
def cluster() -> None:
    """Ask what a cluster would do: DRS, DPM, HA, days of load.

    FILE describes hosts, VMs, pools and rules in TOML or JSON.
    """


def _load(file: Path) -> Cluster:
    from pyvirt.cluster import Cluster
    from pyvirt.spec import load_cluster

    return Cluster.from_spec(load_cluster(file))


def _show(rows: Sequence[dict[str, Any]], as_json: bool, title: str = "") -> None:
    """Print rows as a table, or as one JSON document."""
    if as_json:
        click.echo(json.dumps(list(rows), indent=2))
        return
    if not rows:
        click.echo(title or "nothing to do")
        return
    table = Table(title=title or None, title_justify="left")
    for key, value in rows[0].items():
        table.add_column(key, justify="left" if isinstance(value, str) else "right")
    for row in rows:
        table.add_row(*(_text(value) for value in row.values()))
    print_table(table)


def _text(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)


@cluster.command()
@click.argument("file", type=FILE)
@click.option("--without", metavar="A,B,...", default="", help="Hosts that are taken away.")
@click.option("--fail", metavar="A,B,...", default="", help="Hosts that fail; HA restarts VMs.")
@click.option("--demand", type=float, default=1.0, help="Factor of all demands.", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def whatif(file: Path, without: str, fail: str, demand: float, as_json: bool) -> None:
    """Show how full hosts are, and what breaks, before and after a change."""
    import numpy as np

    from pyvirt.cluster import HostState, evacuate, place
    from pyvirt.errors import InvalidValueError

    before = _load(file)
    if not 0 <= demand <= 1e6:
        raise InvalidValueError(f"--demand must be in [0, 1e6], got {demand}")
    after = before.copy()
    after.vms.demand[:] = np.rint(after.vms.demand * demand)
    gone = [_host(after, name) for name in without.split(",") if name]
    lost = [_host(after, name) for name in fail.split(",") if name]
    if gone:
        evacuate(after, gone).apply()
        after.hosts.state[gone] = HostState.MAINTENANCE
    if lost:
        struck = np.isin(after.vms.host, lost) & (after.vms.on == 1)
        after.hosts.state[lost] = HostState.FAILED
        after.vms.host[struck] = -1
    placed = place(after)
    placed.apply()
    rows = [{"": label, **_figures(one)} for label, one in (("before", before), ("after", after))]
    if as_json:
        rows[1]["unplaced_vms"] = [after.vms.name[vm] for vm in placed.unplaced]
        click.echo(json.dumps(rows, indent=2))
        return
    _show(rows, False)
    for vm in placed.unplaced[:10]:
        click.echo(f"{after.vms.name[vm]}: {placed.reason(int(vm))}")


def _host(one: Cluster, name: str) -> int:
    from pyvirt.errors import InvalidValueError

    if name not in one.hosts.name:
        raise InvalidValueError(f"no host has the name {name!r:.80}")
    return one.hosts.name.index(name)


def _figures(one: Cluster) -> dict[str, Any]:
    import numpy as np

    from pyvirt.cluster import HostState, Slots, headroom, host_watts, violations

    on = one.hosts.state == HostState.ON
    capacity = np.maximum(one.hosts.capacity, 1)
    full = one.load() / capacity
    loads = one.normalised()[:, on]
    watts = host_watts(one.power_tables, one.hosts.power, full[0], on=on)
    running = one.vms.on == 1
    return {
        "hosts on": int(on.sum()),
        "VMs on": int((running & (one.vms.host >= 0)).sum()),
        "fullest CPU": float(full[0, on].max(initial=0.0)),
        "fullest memory": float(full[1, on].max(initial=0.0)),
        "imbalance CPU": float(loads[0].std()) if on.any() else 0.0,
        "imbalance memory": float(loads[1].std()) if on.any() else 0.0,
        "hosts that may fail": headroom(one, Slots(1)).failover_capacity,
        "broken": len(violations(one)),
        "unplaced": int((running & (one.vms.host < 0)).sum()),
        "W": float(watts.sum()),
    }


@cluster.command()
@click.argument("file", type=FILE)
@click.option("--level", type=click.IntRange(1, 5), default=3, show_default=True,
              help="Of migration: 1 only what must be, 5 all that helps.")  # fmt: skip
@click.option("--max-moves", type=click.IntRange(0, 100_000), default=500, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def drs(file: Path, level: int, max_moves: int, as_json: bool) -> None:
    """Recommend migrations that balance load, and say what each gains and costs."""
    from pyvirt.cluster import drs as balance

    made = balance(_load(file), level=level, max_moves=max_moves)
    rows = [
        {
            "VM": move.vm,
            "from": move.source,
            "to": move.target,
            "priority": move.priority,
            "imbalance before": move.before,
            "after": move.after,
            "s": move.seconds,
            "MHz s": move.cpu_mhz_s,
            "reason": move.reason,
            **({"exchanged with": move.exchanged_with} if as_json else {}),
        }
        for move in made.recommendations
    ]
    if as_json:
        document = {
            "imbalance_before": made.imbalance_before,
            "imbalance_after": made.imbalance_after,
            "goal": made.goal,
            "lower_bound": made.lower_bound,
            "moves": rows,
            "left": [made.cluster.vms.name[vm] for vm in made.left],
            "conflicts": [f"{one.name}: {one.why}" for one in made.conflicts],
        }
        click.echo(json.dumps(document, indent=2))
        return
    said = f"imbalance {made.imbalance_before:.4f} to {made.imbalance_after:.4f}"
    if level > 1:
        said += (
            f", goal {made.goal:.4f}; {max_moves} moves at most, if they cost nothing, would not "
            f"get below {made.lower_bound:.4f}"
        )
    click.echo(said)
    _show(rows, False)
    for one in made.conflicts:
        click.echo(f"rule {one.name!r} does not count: {one.why}")


@cluster.command()
@click.argument("file", type=FILE)
@click.option("--minutes", type=click.IntRange(1, 100_000), default=40, show_default=True,
              help="How long the load has been as it is.")  # fmt: skip
@click.option("--spare", type=click.IntRange(0, 1000), default=0, show_default=True,
              help="Hosts whose loss must be borne (HA).")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def dpm(file: Path, minutes: int, spare: int, as_json: bool) -> None:
    """Recommend which hosts to power on or to put into standby."""
    from pyvirt.cluster import DemandHistory, DPMOptions
    from pyvirt.cluster import dpm as decide

    one = _load(file)
    history = DemandHistory(len(one.vms))
    for _ in range(min(minutes, 40)):
        history.record(one)
    plan = decide(one, history, DPMOptions(spare=spare))
    rows = [
        {
            "action": action.action,
            "host": action.name,
            "priority": action.priority,
            "moves": 0 if action.moves is None else len(action.moves),
            "W saved": action.watts,
            "reason": action.reason,
        }
        for action in plan.actions
    ]
    _show(rows, as_json, "" if rows else "all hosts stay as they are")
    if not as_json:
        for name, why in plan.refused[:10]:
            click.echo(f"{name} stays on: {why}")


@cluster.command()
@click.argument("file", type=FILE)
@click.option("--failures", type=click.IntRange(1, 2), default=1, show_default=True,
              help="Hosts that fail at once.")  # fmt: skip
@click.option("--policy", type=click.Choice(["slots", "percentage"]), default="slots",
              show_default=True, help="Of admission control.")  # fmt: skip
@click.option("--all", "every", is_flag=True, help="A row for each failure, not only the worst.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def ha(file: Path, failures: int, policy: str, every: bool, as_json: bool) -> None:
    """Try failures of hosts: which VMs would find no place, and what admission control says."""
    from pyvirt.cluster import Percentage, Slots, headroom, what_if

    one = _load(file)
    rule = Slots(failures) if policy == "slots" else Percentage.of_failures(one, failures)
    state = headroom(one, rule)
    tried = what_if(one, failures)
    table = tried.table
    chosen = range(len(tried.hosts)) if every else [tried.worst] if tried.hosts else []
    rows = [
        {
            "hosts that fail": ", ".join(one.hosts.name[host] for host in tried.hosts[row]),
            "VMs that stop": int(table["stopped"][row]),
            "VMs that find no host": int(table["lost"][row]),
            "free %": float(table["free_percent"][row]),
        }
        for row in chosen
    ]
    if as_json:
        document = {"admission": state.reason, "ok": bool(state.ok), "failures": rows}
        click.echo(json.dumps(document, indent=2))
        return
    click.echo(f"admission control: {'kept' if state.ok else 'broken'}, {state.reason}")
    said = "no VM would be lost" if tried.survived else "VMs would be lost"
    _show(rows, False, f"{len(tried.hosts)} failures of {failures}: {said}")


@cluster.command()
@click.argument("traces", type=click.Path(exists=True, path_type=Path))
@click.option("--cluster", "file", type=FILE,
              help="Replay over this cluster; else as Beloglazov and Buyya did.")  # fmt: skip
@click.option("--policy", metavar="A,B,...", default=None,
              help="With --cluster: none, spread, drs, dpm.  [default: none]  Else npa, dvfs, or "
              "thr, iqr, mad, lr, lrr with -mmt, -mu, -rs, -mc.  [default: thr-mmt]")  # fmt: skip
@click.option("--fidelity", type=click.Choice(["cloudsim303", "corrected"]),
              default="cloudsim303", show_default=True,
              help="With the reference model's faults, or without.")  # fmt: skip
@click.option("--hosts", type=click.IntRange(1, 1_000_000), default=800, show_default=True,
              help="Of Beloglazov and Buyya's model.")  # fmt: skip
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of -rs.")
@click.option("--heat-map", type=OUTPUT, help="Draw hosts over time, as .png or .svg.")
@click.option("--plot", type=OUTPUT, help="Draw power, hosts and migrations, as .png or .svg.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def replay(
    traces: Path,
    file: Path | None,
    policy: str | None,
    fidelity: str,
    hosts: int,
    seed: int,
    heat_map: Path | None,
    plot: Path | None,
    as_json: bool,
) -> None:
    """Replay a day of load: PlanetLab's files, as a folder or .npz.

    Pictures are those of the last policy.
    """
    names = [name.strip() for name in (policy or ("none" if file else "thr-mmt")).split(",")]
    rows = []
    for name in names:
        last = name == names[-1]
        pictures = (heat_map, plot) if last else (None, None)
        if file is not None:
            rows.append({"policy": name, **_replay_cluster(traces, file, name, *pictures)})
        else:
            rows.append(
                {
                    "policy": name,
                    **_replay_day(traces, name, fidelity, hosts, seed, *pictures),
                }
            )
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    _show(rows if file is not None else [_brief(row) for row in rows], False)


def _replay_day(
    traces: Path,
    name: str,
    fidelity: str,
    hosts: int,
    seed: int,
    heat: Path | None,
    plot: Path | None,
) -> dict[str, Any]:
    """Replay under one of Beloglazov and Buyya's policies, and draw it."""
    from pyvirt.cluster import ReplaySetup, beloglazov
    from pyvirt.traces import read_planetlab

    detect, _, select = name.partition("-")
    day = read_planetlab(traces)
    result = beloglazov(
        day.cpu,
        detect,
        select or "mmt",
        fidelity="corrected" if fidelity == "corrected" else "cloudsim303",
        setup=ReplaySetup.planetlab(hosts),
        rng=seed,
        record=heat is not None or plot is not None,
    )
    if result.record is not None:
        from pyvirt.report import beloglazov_plot, save
        from pyvirt.report import heat_map as draw

        used = result.record.utilisation
        if heat is not None:
            save(draw(used, interval_ns=day.interval_ns, on=used > 0), heat)
        if plot is not None:
            save(beloglazov_plot(result), plot)
    return result.as_dict()


def _replay_cluster(
    traces: Path, file: Path, name: str, heat: Path | None, plot: Path | None
) -> dict[str, Any]:
    """Replay over a described cluster, whose VMs take the machines of the traces in turn."""
    import numpy as np

    from pyvirt.cluster import DPMPolicy, DRSPolicy, SpreadPolicy
    from pyvirt.cluster import replay as play
    from pyvirt.errors import InvalidValueError
    from pyvirt.traces import read_planetlab

    makers: dict[str, Any] = {
        "none": lambda: None,
        "spread": SpreadPolicy,
        "drs": DRSPolicy,
        "dpm": DPMPolicy,
    }
    if name not in makers:
        raise InvalidValueError(f"--policy must be one of {', '.join(makers)}, got {name!r:.80}")
    one = _load(file)
    day = read_planetlab(traces)
    row = np.arange(len(one.vms)) % day.cpu.shape[0]
    core = np.where(one.vms.host >= 0, one.hosts.core_khz[one.vms.host], one.hosts.core_khz.min())
    khz = np.rint(day.fraction()[row] * (one.vms.vcpus * core)[:, None]).astype(np.int64)
    result = play(
        one, khz, makers[name](), interval_ns=day.interval_ns, records=True, host_records=True
    )
    if heat is not None or plot is not None:
        from pyvirt.report import heat_map as draw
        from pyvirt.report import replay_plot, save

        if heat is not None and result.hosts is not None:
            whole = one.hosts.capacity[0] * (day.interval_ns / 1e6)
            used = result.hosts["delivered"] / np.maximum(whole, 1)
            shown = draw(
                used,
                interval_ns=day.interval_ns,
                names=one.hosts.name,
                on=result.hosts["on_ms"] > 0,
            )
            save(shown, heat)
        if plot is not None:
            save(replay_plot(result, interval_ns=day.interval_ns), plot)
    return {
        "kWh": result.energy_kwh,
        "CPU missing %": 100 * result.shortfall,
        "migrations": result.migrations,
        "host hours": result.host_on_ms / 3.6e6,
        "hosts short %": 100 * result.overloaded,
    }


def _brief(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "policy": row["policy"],
        "kWh": float(row["energy_kwh"]),
        "migrations": int(row["migrations"]),
        "SLATAH %": 100 * float(row["slatah"]),
        "PDM %": 100 * float(row["pdm"]),
        "shutdowns": int(row["host_shutdowns"]),
        "VMs left": int(row["vms_left"]),
        "hosts at end": int(row["hosts_in_use_at_end"]),
    }
