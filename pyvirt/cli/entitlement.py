"""``pyvirt entitlement``: divide a capacity over a tree of pools."""

from __future__ import annotations

import json
import math
import tomllib
from pathlib import Path

import click
from rich.table import Table

from pyvirt.cli.terminal import print_table
from pyvirt.errors import InvalidValueError

__all__ = ["entitlement"]


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--capacity", type=float, help="What is divided; by default the file's `capacity`.")
@click.option(
    "--overcommit",
    type=click.Choice(["error", "scale"]),
    default="error",
    show_default=True,
    help="What to do where reservations exceed the capacity: refuse, or cut all in proportion.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def entitlement(file: Path, capacity: float | None, overcommit: str, as_json: bool) -> None:
    """Divide a capacity over the tree of pools in FILE (TOML).

    The file has the fields of the root pool, `capacity`, and `resource`, "cpu" or "memory".
    Reservations must pass admission control, unless --overcommit is scale.
    """
    from pyvirt.entitlement import Pool, admit, solve

    try:
        fields = tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidValueError(f"{file}: {error}") from None
    resource = fields.pop("resource", "cpu")
    total = fields.pop("capacity", None)
    total = total if capacity is None else capacity
    if total is None:
        raise InvalidValueError(f"{file} names no capacity, and neither does --capacity")
    tree = Pool.from_dict({"name": file.stem, **fields})
    if overcommit == "error":
        admit(tree, total)
    result = solve(tree, total, resource=resource, overcommit=overcommit)  # type: ignore[arg-type]
    rows = zip(
        result.names, result.given.tolist(), result.floor.tolist(), result.demand.tolist(),
        strict=True,
    )  # fmt: skip
    if as_json:
        nodes = [
            {"name": n, "entitlement": e, "floor": f, "demand": d if math.isfinite(d) else None}
            for n, e, f, d in rows
        ]
        click.echo(json.dumps({"capacity": total, "resource": resource, "nodes": nodes}, indent=1))
        return
    table = Table("name")
    for heading in ("entitlement", "floor", "demand"):
        table.add_column(heading, justify="right")
    for name, *amounts in rows:
        table.add_row(name, *map(_written, amounts))
    print_table(table)


def _written(amount: float) -> str:
    """Give an amount with two decimals, if it has any."""
    return f"{amount:,.2f}".removesuffix(".00") if math.isfinite(amount) else "-"
