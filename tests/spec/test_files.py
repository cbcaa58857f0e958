"""Descriptions in files: what is written reads as an equal one, exactly."""

import json
import math
import tomllib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import pyvirt as pv
from pyvirt.errors import InvalidTypeError, InvalidValueError
from pyvirt.spec import (
    ClusterSpec,
    HostSpec,
    ScenarioSpec,
    VMSpec,
    dump_json,
    dump_toml,
    load_cluster,
    load_scenario,
)
from pyvirt.spec.toml import write_toml
from spec.kinds import KINDS, specs

FEW = settings(
    max_examples=40, deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much,
                           HealthCheck.data_too_large],
)  # fmt: skip


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_kind_goes_round(kind):
    @settings(FEW, max_examples=12 if kind is ScenarioSpec else 40)
    @given(specs(kind))
    def check(spec):
        for again in (
            kind.from_dict(spec.to_dict()),
            kind.from_dict(json.loads(dump_json(spec))),
            kind.from_dict(tomllib.loads(dump_toml(spec))),
        ):
            assert again == spec
            assert repr(again) == repr(spec)  # 1 and 1.0 are equal, and not the same
            assert hash(again) == hash(spec)
        assert dump_toml(kind.from_dict(tomllib.loads(dump_toml(spec)))) == dump_toml(spec)

    check()


@settings(FEW, max_examples=10)
@given(specs(ScenarioSpec), st.sampled_from(["toml", "json"]))
def test_scenarios_go_round_through_files(tmp_path_factory, spec, suffix):
    file = tmp_path_factory.mktemp("scenario") / f"scenario.{suffix}"
    file.write_text(dump_json(spec) if suffix == "json" else dump_toml(spec), encoding="utf-8")
    assert load_scenario(file) == spec


PLAIN = st.recursive(
    st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text()
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.dictionaries(st.text(), inner) | st.lists(inner.filter(
        lambda value: not isinstance(value, dict))),
)  # fmt: skip


@settings(FEW, max_examples=20)
@given(st.dictionaries(st.text(), PLAIN | st.lists(st.dictionaries(st.text(), PLAIN))))
def test_plain_data_as_toml(data):
    assert tomllib.loads(write_toml(data)) == data


def test_floats_keep_each_bit():
    numbers = [0.1, 1e16, 1e-300, 5e-324, 1.7976931348623157e308, -0.0, 2.0, 1e22]
    again = tomllib.loads(write_toml({"x": numbers}))["x"]
    assert [(type(a), math.copysign(1, a), a) for a in again] == [
        (float, math.copysign(1, a), a) for a in numbers
    ]


@pytest.mark.parametrize("value", [None, {1}, b"x", [{"a": 1}, 2]])
def test_what_toml_cannot_hold(value):
    with pytest.raises(InvalidTypeError, match="a TOML file cannot hold"):
        write_toml({"x": value})


def test_what_is_no_specification_is_not_written():
    for dump in (dump_toml, dump_json):
        with pytest.raises(InvalidTypeError, match="spec must be a Spec"):
            dump({"name": "x"})


SMALL = """
duration = "1h"
[[cluster.hosts]]
name = "h"
count = 2
memory = "64GiB"
[[cluster.vms]]
name = "vm"
count = 3
host = ["h0", "h1"]
"""


def test_entries_that_stand_for_several(tmp_path):
    file = tmp_path / "several.toml"
    file.write_text(SMALL)
    cluster = load_scenario(file).cluster
    assert [host.name for host in cluster.hosts] == ["h0", "h1"]
    assert [(vm.name, vm.host) for vm in cluster.vms] == [
        ("vm0", "h0"), ("vm1", "h1"), ("vm2", "h0"),
    ]  # fmt: skip
    file.write_text(SMALL.replace('"h1"]', '"h2"]'))
    with pytest.raises(InvalidValueError) as caught:
        load_scenario(file)
    assert str(caught.value) == (
        f"{file}:10: cluster.vms[0].host: host of VM 'vm1' must name a host of the cluster, "
        "got 'h2'"
    )


def test_a_cluster_in_a_file_of_its_own(tmp_path):
    cluster = ClusterSpec("lab", [HostSpec("h")], [VMSpec("v", host="h")])
    (tmp_path / "lab.toml").write_text(dump_toml(cluster))
    file = tmp_path / "day.json"
    file.write_text('{"$schema": "scenario.json", "cluster": "lab.toml", "duration": "24h"}')
    assert load_scenario(file) == ScenarioSpec(cluster, "24h")
    assert load_cluster(tmp_path / "lab.toml") == cluster
    (tmp_path / "lab.toml").write_text("[[hosts]]\nname = 3")
    with pytest.raises(InvalidTypeError) as caught:
        load_scenario(file)
    assert str(caught.value) == (
        f"{tmp_path / 'lab.toml'}:2: hosts[0].name: name of host must be text, not 3"
    )


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.toml"):
        load_scenario(tmp_path / "none.toml")


def test_public_names():
    assert pv.ScenarioSpec is ScenarioSpec
