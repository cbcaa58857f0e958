"""Malformed scenarios: each is refused, with file, line, key, value and what is accepted."""

import copy
import pickle
import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pyvirt as pv
from pyvirt.spec import load_cluster, load_scenario

FILES = Path(__file__).with_name("files")
SMALL = (FILES / "small.toml").read_text(encoding="utf-8")
CASES = tomllib.loads((FILES / "malformed.toml").read_text(encoding="utf-8"))["case"]


def test_there_are_enough():
    assert len({case["id"] for case in CASES}) == len(CASES) >= 100


def test_the_scenario_that_they_are_made_of_is_well_formed(tmp_path):
    spec = load_scenario(FILES / "small.toml")
    assert [vm.name for vm in spec.cluster.vms] == ["web", "batch"]
    assert spec.cluster.vms[0].workload.cpu.mhz == 900.0
    assert spec.faults[0].recover_after_ns == 300 * 10**9


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_malformed(tmp_path, case):
    file = tmp_path / "bad.toml"
    old = case.get("replace", SMALL)
    assert old in SMALL
    file.write_text(SMALL.replace(old, case["by"], 1), encoding="utf-8")
    expected = case["message"].replace("FILE", str(file)).replace("FOLDER", str(tmp_path))
    with pytest.raises(getattr(pv, case["error"])) as caught:
        load_scenario(file)
    said = str(caught.value)
    if "(at line" in expected:  # the words are tomllib's, and another Python may have others
        _, _, place = expected.rpartition("(at line")
        assert said.startswith(f"{file}: ")
        assert place in said
    else:
        assert said == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"seed": 1, "seed": 2}', "an object must have each key once, two are 'seed'"),
        ('{"seed": NaN}', "numbers must be finite, got NaN"),
        ('{"seed": 1', "Expecting ',' delimiter: line 1 column 11 (char 10)"),
        ("[" * 100_000, None),
    ],
)
def test_malformed_json(tmp_path, text, message):
    file = tmp_path / "bad.json"
    file.write_text(text)
    with pytest.raises(pv.InvalidValueError) as caught:
        load_scenario(file)
    nested = f"{file} must not be nested deeper than Python can go"
    assert str(caught.value) == (f"{file}: {message}" if message else nested)


def test_json_has_keys_without_lines(tmp_path):
    file = tmp_path / "bad.json"
    file.write_text('{"duration": "1h", "cluster": {"hosts": [{"name": "h", "memory": "1GB"}]}}')
    with pytest.raises(pv.InvalidValueError) as caught:
        load_scenario(file)
    assert str(caught.value).startswith(f"{file}: cluster.hosts[0].memory: memory of host 'h'=")


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("list.json", b"[1]", "must hold a table of fields, not [1]"),
        ("latin.toml", b"name = '\xe9'", "must be text in UTF-8: 'utf-8' codec can't decode byte"),
    ],
)
def test_what_is_no_table(tmp_path, name, data, message):
    file = tmp_path / name
    file.write_bytes(data)
    for load in (load_scenario, load_cluster):
        with pytest.raises(pv.InvalidValueError) as caught:
            load(file)
        assert str(caught.value).startswith(f"{file} {message}")


def test_toml_that_is_nested_too_deep(tmp_path):
    file = tmp_path / "deep.toml"
    file.write_text("a = " + "[" * 100_000)
    with pytest.raises(pv.InvalidValueError, match="nest") as caught:
        load_scenario(file)
    assert str(caught.value).startswith(str(file))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_damage_is_told_as_an_error_of_ours(tmp_path_factory, data):
    """Some letters of a good file are replaced, left out or doubled: it loads or is refused."""
    text = SMALL
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(text) - 1))
        piece = data.draw(
            st.sampled_from(["", "0", '"', "]", "=", "\n", "-", "é", "[[", text[at] * 2])
        )
        text = text[:at] + piece + text[at + data.draw(st.integers(0, 9)) :]
    file = tmp_path_factory.getbasetemp() / "damaged.toml"
    file.write_text(text, encoding="utf-8")
    spec = said = None
    try:
        spec = load_scenario(file)
    except pv.PyvirtError as error:
        said = str(error)
    if spec is None:
        assert said.startswith(str(file))
    else:
        assert type(spec).from_dict(spec.to_dict()) == spec


@pytest.mark.parametrize(
    "turn", [copy.copy, copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))]
)
def test_a_scenario_is_a_value(turn):
    spec = load_scenario(FILES / "small.toml")
    again = turn(spec)
    assert again == spec
    assert hash(again) == hash(spec)
    assert not hasattr(spec.cluster.vms[0], "__dict__")


def test_objects_stay_usable(tmp_path):
    spec = load_scenario(FILES / "small.toml")
    with pytest.raises(pv.InvalidValueError, match="must not exceed duration_ns"):
        spec.replace(step_ns="2h")
    assert spec == load_scenario(FILES / "small.toml")
