"""``pyvirt validate``: exit codes, JSON lines, the table."""

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pyvirt.cli import main

DATA = Path(__file__).parents[1] / "data"
KEYS = ["id", "verdict", "cases", "failed", "expected", "measured", "reason"]


def call(*args: str) -> Result:
    return CliRunner().invoke(main, ["validate", *args])


@pytest.fixture(autouse=True)
def no_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYVIRT_DATA", raising=False)


def test_json_lines():
    result = call("a2", "A6", "A2", "--json", "--data", str(DATA))
    assert (result.exit_code, result.stderr) == (0, "")
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [list(row) for row in rows] == [KEYS, KEYS]
    assert [(row["id"], row["verdict"]) for row in rows] == [("A2", "pass"), ("A6", "pass")]
    assert all(row["cases"] > 100 and row["failed"] == 0 for row in rows)


def test_skips_are_no_failures():
    result = call("--json")
    assert result.exit_code == 0
    rows = {row["id"]: row for row in map(json.loads, result.stdout.splitlines())}
    assert rows["A1"]["verdict"] == "skip"
    assert rows["A1"]["cases"] == 0
    assert "PYVIRT_DATA" in rows["A1"]["reason"]
    assert rows["A6"]["verdict"] == "pass"


def test_the_table():
    result = call("A2", "A5", "--data", str(DATA))
    assert result.exit_code == 0
    heading, *_ = result.stdout.split("\n", 1)
    assert heading.split() == ["id", "experiment", "verdict", *KEYS[2:]]
    assert "\x1b" not in result.stdout
    assert result.stdout.count(" pass ") == 2
    assert "noncanonical" not in result.stderr


def test_a_failure_is_exit_code_1(tmp_path: Path):
    folder = tmp_path / "guest-images"
    shutil.copytree(DATA / "guest-images", folder)
    path = next(p for p in folder.glob("*.json") if "vmcb_pa" in p.read_text())
    facts = json.loads(path.read_text())
    path.write_text(json.dumps(facts | {"vmcb_pa": facts["host_root"]}))
    result = call("A5", "A2", "--json", "--data", str(tmp_path))
    assert result.exit_code == 1
    verdicts = [json.loads(line)["verdict"] for line in result.stdout.splitlines()]
    assert verdicts == ["fail", "pass"]
    assert call("A5", "--data", str(tmp_path)).exit_code == 1


@pytest.mark.parametrize("args", [("A1", "Z9"), ("--data", "/nowhere/at/all"), ("--nothing",)])
def test_bad_input(args: tuple[str, ...]):
    result = call(*args)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("pyvirt: error: ")


def test_data_from_the_environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PYVIRT_DATA", str(DATA))
    result = call("A5", "--json")
    assert json.loads(result.stdout)["verdict"] == "pass"
