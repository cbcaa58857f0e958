"""``pyvirt validate``: run the experiments and print expected, measured, verdict."""

from __future__ import annotations

import json
from pathlib import Path

import click
from rich.table import Table
from rich.text import Text

from pyvirt.cli.terminal import print_table, step_progress

__all__ = ["validate"]

COLOUR = {"pass": "green", "fail": "bold red", "skip": "yellow"}


@click.command()
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
@click.option(
    "--data",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder with the data sets; the one that PYVIRT_DATA names, if not given.",
)
@click.option("--live", is_flag=True, help="Measure this machine: those that can (S5, S6, X1).")
def validate(ids: tuple[str, ...], as_json: bool, data: Path | None, live: bool) -> int:
    """Run the validation experiments with these IDs, or all of them.

    Each compares what pyvirt computes with results that pyvirt did not produce. One whose
    data are not there is skipped. Exit code 0: nothing failed; 1: something did.
    """
    from pyvirt.validation import Context, select

    chosen = select(ids, live=live)
    failed = False
    table = Table("id", "experiment", "verdict")
    table.add_column("cases", justify="right")
    table.add_column("failed", justify="right")
    for name in ("expected", "measured", "reason"):
        table.add_column(name, overflow="fold")
    with step_progress(len(chosen)) as (report, advance):
        context = (
            Context.from_environment(report) if data is None else Context(data, progress=report)
        )
        for experiment in chosen:
            report(f"{experiment.id} {experiment.title}")
            outcome = experiment.run_live(context) if live else experiment.run(context)
            failed |= outcome.verdict == "fail"
            advance()
            if as_json:
                click.echo(json.dumps(outcome.as_dict()))
                continue
            same = outcome.verdict == "pass" and outcome.measured == outcome.expected
            table.add_row(
                outcome.id,
                experiment.title,
                Text(outcome.verdict, style=COLOUR[outcome.verdict]),
                f"{outcome.cases:,}",
                f"{outcome.failed:,}",
                outcome.expected,
                "the same" if same else outcome.measured,
                outcome.reason,
            )
    if not as_json:
        print_table(table)
    return int(failed)
