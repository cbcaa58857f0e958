"""``pyvirt cluster``: tables, JSON, plots, and one line for bad input."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from pyvirt.cli import main
from pyvirt.spec import load_cluster

FILE = """
[[hosts]]
name = "h"
count = 3
cpus = 8
mhz = "2GHz"
memory = "64GiB"
power_w = [100, 110, 120, 130, 140, 150, 160, 170, 180, 190, 200]

[[vms]]
name = "v"
count = 6
vcpus = 2
memory = "4GiB"
host = ["h0", "h0", "h1"]
cpu_demand = "2GHz"
cpu_reservation = "1GHz"
memory_active = "1GiB"

[[rules]]
name = "apart"
kind = "separate"
vms = ["v0", "v1"]
"""


def call(tmp_path: Path, *args: str, text: str = FILE, suffix: str = ".toml") -> Result:
    path = tmp_path / f"cluster{suffix}"
    path.write_text(text)
    return CliRunner().invoke(main, ["cluster", args[0], str(path), *args[1:]])


def rows(result: Result) -> list:
    assert (result.exit_code, result.stderr) == (0, ""), result.stderr
    return json.loads(result.stdout)


def test_whatif(tmp_path: Path):
    before, after = rows(call(tmp_path, "whatif", "--json"))
    assert (before["hosts on"], before["VMs on"], before["broken"]) == (3, 6, 2)
    assert before["fullest CPU"] == 0.5
    before, after = rows(call(tmp_path, "whatif", "--json", "--fail", "h0", "--demand", "2"))
    assert (after["hosts on"], after["unplaced"], after["broken"]) == (2, 0, 0)
    assert after["fullest CPU"] == 0.75
    before, after = rows(call(tmp_path, "whatif", "--json", "--without", "h1,h2"))
    assert after["hosts on"] == 1
    assert "before" in call(tmp_path, "whatif").stdout


def test_whatif_names_what_finds_no_host(tmp_path: Path):
    text = FILE.replace('cpu_reservation = "1GHz"', 'cpu_reservation = "6GHz"')
    result = call(tmp_path, "whatif", "--fail", "h0,h1", text=text)
    assert "no host: " in result.stdout
    assert "it reserves 6000 MHz of 4000 free" in result.stdout


def test_drs(tmp_path: Path):
    document = rows(call(tmp_path, "drs", "--json"))
    assert document["moves"][0]["priority"] == 1
    assert {move["VM"] for move in document["moves"][:1]} <= {"v0", "v1"}
    assert document["imbalance_after"] < document["imbalance_before"]
    assert document["lower_bound"] <= document["imbalance_after"] + 1e-12
    assert document["left"] == document["conflicts"] == []
    text = call(tmp_path, "drs", "--level", "1").stdout
    assert text.splitlines()[0] == "imbalance 0.1455 to 0.0727"
    assert "; 7 moves at most" in call(tmp_path, "drs", "--max-moves", "7").stdout
    # One for another: neither move alone would help.
    text = FILE[: FILE.index("[[vms]]")].replace("count = 3", "count = 2")
    for name, host, mhz in (("a", 0, 10_000), ("b", 0, 9000), ("c", 1, 6000), ("d", 1, 7000)):
        text += f'[[vms]]\nname = "{name}"\nhost = "h{host}"\nvcpus = 8\ncpu_demand = {mhz}\n'
    moves = rows(call(tmp_path, "drs", "--level", "5", "--json", text=text))["moves"]
    assert {(move["VM"], move["exchanged with"]) for move in moves} == {("a", "d"), ("d", "a")}


def test_dpm(tmp_path: Path):
    text = FILE.replace('cpu_demand = "2GHz"', 'cpu_demand = "1GHz"')
    found = rows(call(tmp_path, "dpm", "--json", text=text))
    actions = [(row["action"], row["host"], row["W saved"]) for row in found]
    assert actions == [("off", "h2", 100.0), ("off", "h1", 100.0)]
    assert (
        "all hosts stay as they are" in call(tmp_path, "dpm", "--minutes", "39", text=text).stdout
    )
    assert "stays on" in call(tmp_path, "dpm", "--spare", "3", text=text).stdout


def test_ha(tmp_path: Path):
    document = rows(call(tmp_path, "ha", "--json", "--all"))
    assert document["ok"]
    assert [row["VMs that stop"] for row in document["failures"]] == [4, 2, 0]
    double = rows(call(tmp_path, "ha", "--json", "--failures", "2", "--policy", "percentage"))
    assert len(double["failures"]) == 1
    text = call(tmp_path, "ha").stdout
    assert "3 failures of 1: no VM would be lost" in text


def test_replay(tmp_path: Path):
    day = tmp_path / "day.npz"
    rng = np.random.default_rng(0)
    np.savez(
        day, util=rng.integers(1, 60, (20, 288)).astype(np.uint8), name=np.arange(20).astype(str)
    )
    plot = tmp_path / "hosts.png"
    args = ["cluster", "replay", str(day), "--hosts", "20", "--policy", "npa,thr-mmt"]
    result = CliRunner().invoke(main, [*args, "--json"])
    npa, thr = rows(result)
    assert npa["policy"] == "npa"
    assert npa["migrations"] == 0
    assert 0 < thr["energy_kwh"] < npa["energy_kwh"]
    result = CliRunner().invoke(main, [*args, "--heat-map", str(plot)])
    assert result.exit_code == 0
    assert plot.read_bytes()[:4] == b"\x89PNG"
    result = CliRunner().invoke(main, [*args, "--plot", str(tmp_path / "day.svg")])
    assert (result.exit_code, result.stderr) == (0, "")
    assert (tmp_path / "day.svg").stat().st_size > 5000


def test_replay_over_a_cluster(tmp_path: Path):
    day = tmp_path / "day.npz"
    util = np.full((4, 12), 50, np.uint8)
    np.savez(day, util=util, name=np.arange(4).astype(str))
    described = tmp_path / "cluster.toml"
    described.write_text(FILE)
    args = ["cluster", "replay", str(day), "--cluster", str(described)]
    still, moved = rows(CliRunner().invoke(main, [*args, "--policy", "none,drs", "--json"]))
    # Three hosts of 16 GHz, six VMs at half of 4 GHz: 100 W and a part of 100 W more, for an hour.
    assert abs(still["kWh"] - (0.3 + 0.1 * 12 / 16)) < 1e-9
    assert (still["CPU missing %"], still["migrations"], still["host hours"]) == (0, 0, 3)
    assert moved["migrations"] >= 1
    pictures = ["--heat-map", str(tmp_path / "a.png"), "--plot", str(tmp_path / "b.png")]
    result = CliRunner().invoke(main, [*args, *pictures])
    assert (result.exit_code, result.stderr) == (0, "")
    assert (tmp_path / "a.png").exists()
    assert (tmp_path / "b.png").exists()
    result = CliRunner().invoke(main, [*args, "--policy", "best"])
    assert result.exit_code == 2
    assert "--policy must be one of none, spread, drs, dpm" in result.stderr


@pytest.mark.parametrize(
    ("args", "text", "message"),
    [
        (["whatif"], "name = ", "cluster.toml: "),
        (
            ["whatif"],
            'vms = [{name = "v", host = "x"}]',
            "must name a host of the cluster, got 'x'",
        ),
        (["whatif"], 'hosts = [{name = "h", count = -1}]', "count of hosts 'h' must be in"),
        (["whatif", "--fail", "zz"], FILE, "no host has the name 'zz'"),
        (["whatif", "--demand", "nan"], FILE, "--demand must be in"),
        (["dpm", "--minutes", "0"], FILE, "--minutes"),
    ],
)
def test_bad_input(tmp_path: Path, args: list[str], text: str, message: str):
    result = call(tmp_path, *args, text=text)
    assert result.exit_code == 2
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_json_files(tmp_path: Path):
    toml = tmp_path / "a.toml"
    toml.write_text(FILE)
    spec = load_cluster(toml)
    other = tmp_path / "a.json"
    other.write_text(json.dumps(spec.to_dict()))
    assert load_cluster(other) == spec
    assert [vm.host for vm in spec.vms] == ["h0", "h0", "h1"] * 2
    other.write_text("[1]")
    with pytest.raises(ValueError, match=r"a\.json must hold a table of fields"):
        load_cluster(other)
