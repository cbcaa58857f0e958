"""``pyvirt entitlement``: the table, JSON, and one line for bad input."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pyvirt.cli import main

FILE = """
capacity = 6000
children = [
    {name = "a", shares = 2000},
    {name = "b", shares = 1000, reservation = 2000},
    {name = "c", shares = 1000, limit = 500.25},
]
"""


def call(tmp_path: Path, text: str, *args: str) -> Result:
    path = tmp_path / "host.toml"
    path.write_text(text)
    return CliRunner().invoke(main, ["entitlement", str(path), *args])


def test_table(tmp_path: Path):
    result = call(tmp_path, FILE)
    assert (result.exit_code, result.stderr) == (0, "")
    rows = [line.split() for line in result.stdout.splitlines()]
    assert rows[0] == ["name", "entitlement", "floor", "demand"]
    assert rows[2:] == [
        ["host", "6,000", "2,000", "-"],
        ["host/a", "3,499.75", "0", "-"],
        ["host/b", "2,000", "2,000", "-"],
        ["host/c", "500.25", "0", "500.25"],
    ]


def test_json(tmp_path: Path):
    result = call(tmp_path, FILE, "--json", "--capacity", "1000", "--overcommit", "scale")
    document = json.loads(result.stdout)
    assert (document["capacity"], document["resource"]) == (1000, "cpu")
    assert [node["entitlement"] for node in document["nodes"]] == [1000, 0, 1000, 0]
    assert document["nodes"][1] == {
        "name": "host/a", "entitlement": 0, "floor": 0, "demand": None
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (FILE, ["--capacity", "1000"], "needs 2000 and has 1000: 1000 is missing, for 'host/b'"),
        (FILE.replace("limit", "limits"), [], "client 'c' has no field 'limits'"),
        (FILE.replace("500.25", "-1"), [], "limit of client 'c' must be a number"),
        (FILE.replace("capacity = 6000", ""), [], "names no capacity"),
        (FILE.replace("capacity", "resource = 'disk'\ncapacity"), [], "got 'disk'"),
        (FILE.replace("6000", "'much'"), [], "must be a number, not 'much'"),
        ("a = [", [], "host.toml"),
    ],
)
def test_bad_input(tmp_path: Path, text: str, options: list[str], message: str):
    result = call(tmp_path, text, *options)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
