"""``pyvirt run``: run a scenario, and show what happened."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pyvirt.cli.run_show import show_replications, show_run, show_side_by_side
from pyvirt.cli.terminal import time_progress
from pyvirt.errors import InvalidValueError, PyvirtError

if TYPE_CHECKING:
    from pyvirt.machine.scenario import Result, Scenario

__all__ = ["run"]

#: Events that are shown without being asked for.
SHOWN = 10


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--until", help="When to stop, such as 10s; by default the scenario's duration.")
@click.option("--seed", type=int, help="In place of the scenario's.")
@click.option("--mode", type=click.Choice(["exact", "demand"]), help="In place of the scenario's.")
@click.option("--hypervisor", help="esxi, xen, hyperv, virtualbox or kvm for all hosts; or all.")
@click.option("--replications", type=int, help="Runs with seeds of their own.")
@click.option("--threads", type=int, default=1, show_default=True, help="In which hosts run.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Write files here.")
@click.option("--overwrite", is_flag=True, help="Replace files that are there.")
@click.option("--parquet", is_flag=True, help="Write tables as Parquet, not as CSV.")
@click.option(
    "--checkpoint",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Keep the run in this file; if there is one, go on from there.",
)
@click.option("--events", type=int, default=SHOWN, show_default=True, help="How many to show.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document, with each sample.")
def run(
    file: Path,
    until: str | None,
    seed: int | None,
    mode: str | None,
    hypervisor: str | None,
    replications: int | None,
    threads: int,
    out: Path | None,
    overwrite: bool,
    parquet: bool,
    checkpoint: Path | None,
    events: int,
    as_json: bool,
) -> None:
    """Run the scenario of FILE (TOML or JSON): hosts, VMs, policies, faults.

    Shows what hosts and VMs did, and what happened. With --out there are tables of all samples,
    esxtop's batch file of each host, a trace for Perfetto and a report in HTML besides.
    """
    from pyvirt.machine.scenario import Scenario

    scenario = Scenario.load(file)
    if mode is not None:
        scenario = scenario.replace(mode=mode)
    times = scenario.spec.replications if replications is None else replications
    if hypervisor == "all" or times != 1:
        if checkpoint is not None or out is not None:
            raise InvalidValueError(
                "--checkpoint and --out are for one run, and must be given without --hypervisor "
                "all and --replications"
            )
        options = {"until": until, "seed": seed, "threads": threads}
        if hypervisor == "all":
            _side_by_side(scenario, times, options, as_json)
        else:
            chosen = scenario if hypervisor is None else scenario.under(hypervisor)
            _replicated(chosen, times, options, as_json)
        return
    if hypervisor is not None:
        scenario = scenario.under(hypervisor)
    with time_progress(file.name, scenario.spec.duration_ns) as progress:
        result = scenario.run(
            until,
            seed,
            threads=threads,
            checkpoint=checkpoint,
            tell=progress,
        )
    if out is not None:
        from pyvirt.report.run_files import save

        save(result, out, overwrite=overwrite, parquet=parquet)
    if as_json:
        click.echo(json.dumps(document(result), indent=1))
    else:
        show_run(result, events=events)


def _replicated(scenario: Scenario, times: int, options: dict[str, Any], as_json: bool) -> None:
    """Show means of several runs with confidence intervals."""
    from pyvirt.report.replications import replication_table

    found = _runs(scenario, times, options, "")
    if as_json:
        click.echo(json.dumps(list(replication_table(found)), indent=1))
    else:
        show_replications(found)


def _side_by_side(scenario: Scenario, times: int, options: dict[str, Any], as_json: bool) -> None:
    """Show the figures under each hypervisor that can run the scenario."""
    from pyvirt.report.replications import side_by_side
    from pyvirt.spec.host import HYPERVISORS

    found = {}
    for name in HYPERVISORS:
        try:
            found[name] = _runs(scenario.under(name), times, options, name)
        except PyvirtError as error:
            click.echo(f"{name}: {' '.join(str(error).split())}", err=True)
    if not found:
        raise InvalidValueError("no hypervisor can run this scenario")
    if as_json:
        click.echo(json.dumps(list(side_by_side(found)), indent=1))
    else:
        show_side_by_side(found)


def _runs(scenario: Scenario, times: int, options: dict[str, Any], what: str) -> list[Result]:
    whole = times * scenario.spec.duration_ns
    with time_progress(what or scenario.spec.name, whole) as progress:
        return scenario.replicate(times, **options, tell=progress)


def document(result: Result) -> dict[str, Any]:
    """Give a result as what JSON holds."""
    return {
        "provenance": result.provenance,
        "times_ns": result.times_ns.tolist(),
        "host_names": result.host_names,
        "vm_names": result.vm_names,
        "hosts": {name: values.tolist() for name, values in result.hosts.items()},
        "vms": {name: values.tolist() for name, values in result.vms.items()},
        "monitors": [one._asdict() for one in result.monitors],
        "events": [one._asdict() for one in result.events],
    }
