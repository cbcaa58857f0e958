"""``pyvirt run``: tables, JSON, files, several runs, and one line for bad input."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from pyvirt.cli import main
from pyvirt.sched import read_esxtop

FILE = """
duration = "20s"
step = "2s"
[policies.drs]
interval = "6s"
[[cluster.hosts]]
name = "a"
cpus = 2
mhz = 2000
memory = "4GiB"
power_w = [100, 110, 120, 130, 140, 150, 160, 170, 180, 190, 200]
[[cluster.hosts]]
name = "b"
cpus = 2
mhz = 2000
memory = "4GiB"
power_w = [100, 110, 120, 130, 140, 150, 160, 170, 180, 190, 200]
[[cluster.vms]]
name = "busy"
vcpus = 2
host = "a"
memory = "1GiB"
[cluster.vms.workload]
[[cluster.vms]]
name = "web"
vcpus = 2
host = "a"
memory = "1GiB"
[cluster.vms.workload]
cpu = {kind = "onoff", mhz = 3000, on = "200ms", off = "300ms", distribution = "exponential"}
"""


def call(tmp_path: Path, *args: str, text: str = FILE) -> Result:
    path = tmp_path / "scenario.toml"
    path.write_text(text)
    return CliRunner().invoke(main, ["run", str(path), *args])


def test_tables(tmp_path):
    result = call(tmp_path)
    assert (result.exit_code, result.stderr) == (0, "")
    rows = {line.split()[0]: line.split() for line in result.stdout.splitlines() if line.strip()}
    assert 30 < float(rows["a"][1]) <= 100
    assert rows["busy"][1:3] == ["HWMMU", "nested"]
    assert "migrated" in rows


def test_json_is_the_whole_result(tmp_path):
    result = call(tmp_path, "--json", "--seed", "3", "--until", "10s")
    document = json.loads(result.stdout)
    assert document["times_ns"] == [2 * 10**9 * i for i in range(1, 6)]
    assert document["provenance"]["seed"] == 3
    assert document["vm_names"] == ["busy", "web"]
    run = np.array(document["vms"]["run_ns"]) + document["vms"]["device_run_ns"]
    moved = np.array(document["hosts"]["migration_ns"])
    assert run.sum() + moved.sum() == np.array(document["hosts"]["run_ns"]).sum()
    assert document["events"][0]["what"] == "power-on"


def test_files(tmp_path):
    out = tmp_path / "out"
    assert call(tmp_path, "--out", str(out)).exit_code == 0
    assert {"hosts.csv", "vms.csv", "events.csv", "trace.json", "report.html"} <= {
        path.name for path in out.iterdir()
    }
    assert read_esxtop(out / "esxtop-a.csv").host == "a"
    again = call(tmp_path, "--out", str(out))
    assert again.exit_code == 2
    assert "pyvirt: error:" in again.stderr
    assert call(tmp_path, "--out", str(out), "--overwrite").exit_code == 0


def test_hypervisors_side_by_side(tmp_path):
    result = call(tmp_path, "--hypervisor", "all", "--until", "6s", "--json")
    rows = json.loads(result.stdout)
    assert set(rows[0]) == {"figure", "esxi", "xen", "hyperv", "virtualbox", "kvm"}
    one = call(tmp_path, "--hypervisor", "xen", "--until", "6s", "--json")
    assert one.exit_code == 0
    shown = call(tmp_path, "--hypervisor", "all", "--until", "4s")
    assert "virtualbox" in shown.stdout


def test_who_cannot_run_it_is_named(tmp_path):
    pools = '[[cluster.pools]]\nname = "p"\n'
    text = FILE + pools
    result = call(tmp_path, "--hypervisor", "all", "--until", "4s", "--json", text=text)
    assert set(json.loads(result.stdout)[0]) == {"figure", "esxi"}
    assert "xen: pools of host" in result.stderr


def test_replications(tmp_path):
    result = call(tmp_path, "--replications", "3", "--json")
    rows = {row["figure"]: row for row in json.loads(result.stdout)}
    assert rows["utilisation (%)"]["half"] > 0
    assert rows["migrations"]["least"] >= 1


def test_modes(tmp_path):
    exact, divided = (
        json.loads(call(tmp_path, "--json", "--mode", mode).stdout) for mode in ("exact", "demand")
    )
    runs = [np.array(one["vms"]["run_ns"][0]).sum() for one in (exact, divided)]
    assert runs[0] == pytest.approx(runs[1], rel=0.05)


def test_a_checkpoint_goes_when_the_run_is_over(tmp_path):
    kept = tmp_path / "kept"
    assert call(tmp_path, "--checkpoint", str(kept)).exit_code == 0
    assert not kept.exists()
    kept.write_text("what is this?")
    refused = call(tmp_path, "--checkpoint", str(kept))
    assert refused.exit_code == 2
    assert "is no checkpoint" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--until", "21s"], "until must be in"),
        (["--seed", "-1"], "seed must be an integer >= 0, got -1"),
        (["--threads", "0"], "threads must be an integer >= 1, got 0"),
        (["--hypervisor", "qemu"], "qemu"),
        (["--replications", "0"], "count must be an integer >= 1, got 0"),
        (["--replications", "2", "--out", "x"], "for one run"),
    ],
)
def test_bad_arguments(tmp_path, arguments, words):
    result = call(tmp_path, *arguments)
    assert result.exit_code == 2
    assert words in result.stderr


def test_pools_under_hosts_that_divide_time(tmp_path):
    text = FILE + '[[cluster.pools]]\nname = "p"\n'
    assert call(tmp_path, "--mode", "demand", text=text).exit_code == 0
    result = call(tmp_path, "--mode", "demand", "--hypervisor", "xen", text=text)
    assert result.exit_code == 2
    assert "must be empty: the scheduler credit2 knows of none" in result.stderr
