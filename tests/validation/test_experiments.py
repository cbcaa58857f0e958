"""Every experiment, on the small images that the repository carries and on all data there are."""

import json
import os
from pathlib import Path

import pytest

from pyvirt.errors import InvalidValueError
from pyvirt.validation import Context, experiments, run, select

DATA = Path(__file__).parents[1] / "data"
FILE_ORACLE = ["A1", "A2", "A3", "A4", "A5", "A9", "A9b"]
REPLAYED = ["C1", "C2", "C3"]  # on days that no repository carries
LOGS = ["H4", "H5"]
IDS = ["A1", "A2", "A3", "A4", "A5", "A6", "A7", "A8", "A9", "A9b", "A10", "A11", "A12"]
IDS += [f"C{number}" for number in range(1, 11)] + [f"H{number}" for number in range(1, 6)]
IDS += [f"S{number}" for number in range(1, 17)] + ["X1", "X2", "X3", "X4", "X5", "X6"]
# what is measured lies between bounds, and is no sentence of the oracle
BRACKETS = ["A11", "C9", "A12", "H2", "H5", "S3", "S12", "S14", "S16", "X4", "X5"]


@pytest.fixture(scope="module")
def carried() -> Context:
    """The sets in the repository; images stay open from one experiment to the next."""
    return Context(DATA)


@pytest.fixture(scope="module")
def measured(data_dir: Path) -> Context:
    """The sets that PYVIRT_DATA names."""
    return Context(data_dir)


def test_the_table_is_in_the_order_of_the_plan():
    assert list(experiments()) == IDS


@pytest.mark.parametrize("id", [id for id in IDS if id != "C2"])
def test_carried_data(carried: Context, id: str):
    outcome = experiments()[id].run(carried)
    assert (outcome.verdict, outcome.failed) == ("pass", 0), outcome.reason
    assert outcome.measured == outcome.expected or id in BRACKETS
    assert outcome.cases > 0


@pytest.mark.parametrize("id", FILE_ORACLE + REPLAYED + LOGS)
def test_all_data(measured: Context, id: str):
    outcome = experiments()[id].run(measured)
    assert (outcome.verdict, outcome.failed) == ("pass", 0), outcome.reason
    assert outcome.measured == outcome.expected or id in BRACKETS
    assert not outcome.reason.startswith("not run"), outcome.reason


def test_a6_says_what_it_counted():
    outcome = experiments()["A6"].run(Context())
    assert outcome.expected == (
        "native 2, 3, 4, 5; nested 24, 35, 19, 15, 8, 29; three dimensions 124; "
        "agile 4, 8, 12, 16, 20, 24"
    )
    assert outcome.measured == outcome.expected
    assert outcome.reason == ""


@pytest.mark.parametrize("id", [*FILE_ORACLE, "C2", *LOGS])
def test_without_data_it_is_a_skip(id: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.delenv("PYVIRT_DATA", raising=False)
    (outcome,) = run([id])
    assert (outcome.verdict, outcome.cases) == ("skip", 0)
    assert "PYVIRT_DATA" in outcome.reason
    monkeypatch.setenv("PYVIRT_DATA", str(tmp_path / "nowhere"))
    (outcome,) = run([id])
    assert outcome.verdict == "skip"
    assert "nowhere" in outcome.reason
    (outcome,) = run([id], data=tmp_path)
    assert outcome.verdict == "skip"
    folder = {"C2": "planetlab", "H4": "vmware-files", "H5": "vmware-files"}
    assert folder.get(id, "guest-images") in outcome.reason


def test_data_come_from_the_environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PYVIRT_DATA", str(DATA))
    texts: list[str] = []
    (outcome,) = run(["a2"], progress=texts.append)
    assert (outcome.id, outcome.verdict) == ("A2", "pass")
    assert any("CPU" in text for text in texts)


def test_an_outcome_is_json():
    outcome = experiments()["A1"].run(Context())
    assert list(json.loads(json.dumps(outcome.as_dict()))) == [
        "id",
        "verdict",
        "cases",
        "failed",
        "expected",
        "measured",
        "reason",
    ]


def test_selection():
    assert [e.id for e in select(["a6", "A1", "A6"])] == ["A6", "A1"]
    assert [e.id for e in select()] == list(experiments())
    with pytest.raises(InvalidValueError, match="'Z9'"):
        select(["A1", "Z9"])


def test_the_carried_data_are_small():
    total = sum(path.stat().st_size for path in DATA.rglob("*") if path.is_file())
    assert total < 2_000_000, os.fspath(DATA)
