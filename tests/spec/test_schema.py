"""The JSON schemas agree with what the classes accept."""

import dataclasses
import json
import tomllib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from oracle.json_schema import accepts
from pyvirt.errors import InvalidTypeError, PyvirtError
from pyvirt.spec import ClusterSpec, FaultSpec, HostSpec, ScenarioSpec, VMSpec, schema
from pyvirt.spec.base import fields_of
from spec.kinds import KINDS, specs

FEW = settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
#: Values of every sort, to be put into every field.
VALUES = [
    None, True, False, 0, 1, 2, 32, 64, 100, 5000, -1, 2**53 - 1, 2**53, 2**70, 0.5, 1.5, -0.5,
    1e300, "", "x", "h0", "4GiB", "64 gib", "0x1000", "4GB", "1.5KiB", "10ms", "1.5 h", "10 m",
    "2.6GHz", "800 mhz", "fast", "low", "normal", "extreme", "on", "trace", "esx",
    "nested", "tab\tbed", [], ["x"], ["x", "x"], [1], [{"name": "x"}], {},
    {"name": "x"}, {"nme": "x"}, [0.5] * 11, [1] * 10, ["cd", "usb"], {"hosts": [{"name": "h0"}]},
]  # fmt: skip
#: What makes an object of the kind, where its defaults do not.
LEAST = {
    "AdapterSpec": {"name": "n", "kind": "nic"},
    "RuleSpec": {"name": "r", "kind": "together"},
    "FaultSpec": {"at_ns": 0, "what": "host", "target": "h0"},
    "EventSpec": {"at_ns": 0, "what": "power-off", "target": "v"},
    "ScenarioSpec": {"cluster": {"hosts": [{"name": "h0"}]}, "duration_ns": 10**15},
}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_what_is_written_is_accepted(kind):
    made = json.loads(json.dumps(schema(kind)))

    @settings(FEW, max_examples=8 if kind is ScenarioSpec else 30)
    @given(specs(kind))
    def check(spec):
        assert accepts(made, json.loads(json.dumps(spec.to_dict())))

    check()


def least(kind):
    fields = fields_of(kind)
    return LEAST.get(kind.__name__, {"name": "n"} if "name" in fields else {})


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_one_field_at_a_time(kind):
    """The schema and the class agree on any value of any field.

    The class alone finds what contradicts another field; then its message has another path, or
    names the other field.
    """
    made = schema(kind)
    base = least(kind)
    assert accepts(made, base)
    kind.from_dict(base)
    for name in fields_of(kind):
        for value in VALUES:
            data = base | {name: value}
            try:
                kind.from_dict(data)
            except PyvirtError as error:
                if accepts(made, data):
                    said = str(error)
                    if name == "cluster":  # a file's name, which files may have, or no hosts
                        continue
                    others = [other for other in fields_of(kind) if other in said and other != name]
                    assert others or "does not come to whole" in said, (
                        name,
                        value,
                        said,
                    )
            else:
                assert accepts(made, data), (name, value)


@pytest.mark.parametrize(
    ("kind", "data", "expected"),
    [
        (FaultSpec, {"at": "1s", "what": "host", "target": "h"}, True),
        (FaultSpec, {"at_ns": 1, "what": "host", "target": "h"}, True),
        (FaultSpec, {"at": "1s", "at_ns": 1, "what": "host", "target": "h"}, False),
        (FaultSpec, {"at": 1, "what": "host", "target": "h"}, False),
        (FaultSpec, {"what": "host", "target": "h"}, False),
        (HostSpec, {"name": "h", "standby": "1s"}, True),
        (HostSpec, {"name": "h", "standby": "1s", "standby_ns": 1}, False),
    ],
)
def test_times_with_and_without_their_unit(kind, data, expected):
    assert accepts(schema(kind), data) is expected
    try:
        kind.from_dict(data)
    except PyvirtError:
        assert not expected
    else:
        assert expected


def test_a_file_by_hand_is_accepted():
    file = Path(__file__).with_name("files") / "small.toml"
    assert accepts(schema(ScenarioSpec), tomllib.loads(file.read_text(encoding="utf-8")))


def test_what_files_have_beside():
    made = schema(ScenarioSpec)
    day = {"cluster": "lab.toml", "duration": "24h", "$schema": "scenario.json"}
    assert accepts(made, day)
    assert not accepts(made, day | {"cluster": 3})
    several = {"name": "v", "count": 3, "host": ["a", "b"]}
    assert accepts(schema(VMSpec), several)
    assert not accepts(schema(VMSpec), several | {"count": -1})
    assert not accepts(schema(VMSpec), {"name": "v", "host": ["a", "b"]})
    assert not accepts(schema(ClusterSpec), {"pools": [{"name": "p", "count": 2}]})
    cpu = {"name": "v", "workload": {"cpu": "500MHz"}}
    assert accepts(schema(VMSpec), cpu)
    assert not accepts(schema(VMSpec), {"name": "v", "workload": {"cpu": "500"}})


def test_everything_is_described():
    for name, entry in schema(ScenarioSpec)["$defs"].items():
        for key, field in entry["properties"].items():
            assert key == "$schema" or field.get("description"), f"{name}.{key}"


def test_defaults_are_those_of_the_classes():
    entry = schema(HostSpec)["$defs"]["HostSpec"]["properties"]
    fields = {each.name: each.default for each in dataclasses.fields(HostSpec)}
    assert entry["mhz"]["default"] == fields["mhz"] == 1000.0
    assert "default" not in entry["name"]


@pytest.mark.parametrize("kind", [dict, 3, HostSpec("h")])
def test_what_has_no_schema(kind):
    with pytest.raises(InvalidTypeError, match="kind must be a class of"):
        schema(kind)


@given(st.sampled_from(VALUES))
def test_the_oracle_refuses_keywords_that_it_does_not_know(value):
    with pytest.raises(NotImplementedError):
        accepts({"patternProperties": {}}, value)
