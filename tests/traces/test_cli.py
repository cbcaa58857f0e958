"""``pyvirt trace info`` and ``pyvirt trace convert``."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from pyvirt import traces
from pyvirt.cli.app import Command
from pyvirt.cli.trace import READ, WRITTEN, trace
from pyvirt.traces import FORMATS, Op, accesses

# The group as the root command runs it: with its treatment of errors.
main = Command("pyvirt", commands={"trace": trace})


def call(*args):
    return CliRunner().invoke(main, ["trace", *map(str, args)])


def good(*args):
    result = call(*args)
    assert (result.exit_code, result.stderr) == (0, ""), result.output
    return result.stdout


def refused(*args):
    result = call(*args)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("pyvirt: error: ")
    assert result.stderr.count("\n") == 1
    return result.stderr


@pytest.fixture
def recorded(tmp_path):
    path = tmp_path / "a.npy"
    events = accesses([0x1000, 0x2FFF, 0x400000], [Op.LOAD, Op.STORE, Op.FETCH], 2, vcpu=[0, 1, 0])
    events["arg"][0] = 1
    more = accesses([0x9000])
    more["op"] = Op.INVLPG
    traces.write(path, np.concatenate([events, more]))
    return path


def test_formats_are_those_of_the_library():
    assert tuple(READ) == FORMATS
    assert [name for name in FORMATS if name != "npz"] == WRITTEN


def test_info(recorded):
    text = good("info", recorded)
    assert [line.split(maxsplit=1) for line in text.splitlines()[1:]] == [
        ["format", "npy, not compressed"],
        ["events", "4"],
        ["LOAD", "1"],
        ["STORE", "1"],
        ["FETCH", "1"],
        ["INVLPG", "1"],
        ["vCPUs", "0, 1"],
        ["user", "1 of 3 accesses"],
        ["addresses", "0x1000 to 0x400001"],
        ["4K", "pages      4"],
        ["2M", "pages      2"],
    ]
    facts = json.loads(good("info", recorded, "--json"))
    assert facts["counts"] == {"LOAD": 1, "STORE": 1, "FETCH": 1, "INVLPG": 1}
    assert (facts["lowest"], facts["highest"]) == ("0x1000", "0x400001")
    assert (facts["pages"], facts["vcpus"]) == ({"4K": 4, "2M": 2}, [0, 1])
    assert facts["pages_exact"] == {"4K": True, "2M": True}


def test_info_of_little(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("op,addr\n")
    assert "vCPUs         none" in good("info", path)
    assert json.loads(good("info", path, "--json"))["lowest"] is None
    path.write_text("vcpu,addr\n" + "".join(f"{i},0\n" for i in range(20)))
    assert "14, 15 and 4 more" in good("info", path)
    assert "other records" in good("info", _write(tmp_path / "a.din", "3 0\n0 0\n"))


def _write(path, text):
    path.write_text(text)
    return path


def test_convert(recorded, tmp_path):
    target = tmp_path / "b.csv.gz"
    assert good("convert", recorded, target).startswith(f"{target}: 4 events, ")
    assert np.array_equal(traces.read(target), traces.read(recorded))
    facts = json.loads(
        good("convert", recorded, tmp_path / "c", "--to", "lackey", "--on-loss", "drop", "--json")
    )
    assert (facts["events"], facts["dropped"], facts["format"]) == (3, 1, "lackey")
    assert "1 left out" in good("convert", recorded, tmp_path / "d.gem5", "--on-loss", "drop")
    good("convert", tmp_path / "c", tmp_path / "e.npy", "--from", "lackey", "--user")
    assert traces.read(tmp_path / "e.npy")["arg"].tolist() == [1, 1, 1]


def test_part(tmp_path):
    source = tmp_path / "a.npy"
    traces.write(source, np.arange(600_000, dtype=np.uint64))
    for skip, limit in ((0, 0), (0, 5), (7, 300_000), (299_999, 5), (599_999, 5), (700_000, 1)):
        target = tmp_path / "b.npy"
        good("convert", source, target, "--skip", skip, "--limit", limit)
        found = traces.read(target)["addr"]
        assert np.array_equal(found, np.arange(600_000)[skip : skip + limit])


def test_refusals(recorded, tmp_path):
    assert "tells no format" in refused("convert", recorded, tmp_path / "b")
    assert "INVLPG" in refused("convert", recorded, tmp_path / "b.lackey")
    assert "does not exist" in refused("info", tmp_path / "nowhere")
    assert "lackey" in refused("info", recorded, "--from", "lacky")
    assert "npz" in refused("convert", recorded, tmp_path / "b.npz")
    assert "its content" not in refused("info", _write(tmp_path / "x", "what?\n"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npy", "x"]


def test_damage(tmp_path):
    source = _write(tmp_path / "a.din", "0 1\n0 2\nwrong\n0 3\n")
    target = tmp_path / "b.npy"
    assert "line 3" in refused("info", source)
    assert "line 3" in refused("convert", source, target)
    assert not target.exists()
    result = call("convert", source, target, "--salvage")
    assert result.exit_code == 2
    assert "2 events" in result.stdout
    assert "line 3" in result.stderr
    assert traces.read(target)["addr"].tolist() == [1, 2]
