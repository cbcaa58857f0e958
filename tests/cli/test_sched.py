"""``pyvirt sched``: the table, JSON, files, and one line for bad input."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pyvirt.cli import main
from pyvirt.sched import read_esxtop

EXAMPLES = sorted((Path(__file__).parents[2] / "docs" / "examples").glob("sched_*.toml"))
FILE = """
cpus = 2
policy = "stride"
duration = "300ms"
interval = "100ms"
[[vm]]
name = "big"
vcpus = 2
shares = "high"
[[vm]]
name = "small"
shares = "low"
[[vm]]
name = "capped"
quota = {run = "10ms", period = "100ms"}
"""
WEB = '[[vm]]\nname = "web"\nworkload = {kind = "poisson", work = "2ms", gap = "10ms"}\n'


def call(tmp_path: Path, text: str, *args: str) -> Result:
    path = tmp_path / "host.toml"
    path.write_text(text)
    return CliRunner().invoke(main, ["sched", str(path), *args])


def test_table(tmp_path: Path):
    result = call(tmp_path, FILE)
    assert (result.exit_code, result.stderr) == (0, "")
    title, heading, _, *rows, summary = result.stdout.splitlines()
    assert title == "host: 2 CPUs, 3 VMs, 4 vCPUs, 300 ms"
    assert heading.split() == [
        *("vm", "vcpus", "shares", "%RUN", "%RDY", "%CSTP", "%MLMTD", "%WAIT"),
        *("of", "all", "switches", "migrations"),
    ]
    cells = {row.split()[0]: row.split()[1:] for row in rows}
    assert list(cells) == ["big", "small", "capped"]
    assert cells["capped"][:3] == ["1", "1,000", "10.00"]
    assert float(cells["big"][2]) + float(cells["small"][2]) == pytest.approx(190, abs=0.02)
    assert float(cells["big"][2]) + float(cells["big"][3]) == pytest.approx(200, abs=0.02)
    assert summary.startswith("stride: CPUs 100.0 % busy, ")
    assert "wake" not in result.stdout


def test_latencies_are_shown_where_worlds_wake(tmp_path: Path):
    result = call(tmp_path, FILE + WEB)
    assert "from wake-up to run p50 " in result.stdout
    rows = {line.split()[0]: line.split() for line in result.stdout.splitlines() if line.strip()}
    assert rows["big"][-2:] == ["-", "-"]
    assert rows["web"][-1] == "ms"


def test_worlds(tmp_path: Path):
    result = call(tmp_path, FILE, "--worlds")
    names = [line.split()[0] for line in result.stdout.splitlines()[3:-1]]
    assert names == ["big/0", "big/1", "small/0", "capped/0"]


def test_used_is_shown_where_threads_share_cores(tmp_path: Path):
    text = FILE.replace("cpus = 2", "", 1) + "[topology]\nthreads = 2\nsmt = 1.5\n"
    result = call(tmp_path, text)
    assert (result.exit_code, result.stderr) == (0, "")
    rows = [line.split() for line in result.stdout.splitlines()]
    assert rows[1][3:5] == ["%USED", "%RUN"]
    used, run = (sum(float(row[column]) for row in rows[3:6]) for column in (3, 4))
    assert run == pytest.approx(200, abs=0.03)
    assert used == pytest.approx(150, abs=0.1)


def test_compare(tmp_path: Path):
    result = call(tmp_path, FILE, "--compare", "rr, lottery")
    assert (result.exit_code, result.stderr) == (0, "")
    rows = [line.split()[:2] for line in result.stdout.splitlines()[3:] if line.strip()]
    assert rows == [
        *(["rr", "big"], ["lottery", "big"], ["rr", "small"], ["lottery", "small"]),
        *(["rr", "capped"], ["lottery", "capped"], ["rr:", "CPUs"], ["lottery:", "CPUs"]),
    ]
    both = json.loads(call(tmp_path, FILE, "--compare", "rr,stride", "--json").stdout)
    assert [run["policy"] for run in both] == ["rr", "stride"]
    assert both[1] == json.loads(call(tmp_path, FILE, "--json").stdout)


def test_json(tmp_path: Path):
    document = json.loads(call(tmp_path, FILE + WEB, "--json").stdout)
    assert (document["scenario"], document["duration_ns"]) == ("host", 300_000_000)
    for world in document["worlds"]:
        times = ("run_ns", "rdy_ns", "mlmtd_ns", "wait_ns")
        assert sum(world[t] for t in times) + world.get("cstp_ns", 0) == 300_000_000
    assert sum(w["run_ns"] for w in document["worlds"]) == sum(
        c["run_ns"] for c in document["cpus"]
    )
    assert [vm["vm"] for vm in document["vms"]] == ["big", "small", "capped", "web"]
    assert document["series"]["times_ns"] == [100_000_000, 200_000_000, 300_000_000]
    assert document["series"]["vms"]["capped"]["%RUN"] == [10.0, 10.0, 10.0]
    latency = document["wake_latency_ns"]
    assert latency["p50"] <= latency["p99"] <= latency["most"]
    assert latency["most"] == max(vm["wake_most_ns"] for vm in document["vms"])
    quiet = json.loads(call(tmp_path, FILE.replace('interval = "100ms"', ""), "--json").stdout)
    assert "series" not in quiet
    assert set(quiet["wake_latency_ns"].values()) == {None}


def test_percentiles(tmp_path: Path):
    for text, options in (
        (FILE + WEB, ["--percentiles"]),
        ("percentiles = true" + FILE + WEB, []),
        (FILE + WEB + "percentiles = true\n", []),
    ):
        result = call(tmp_path, text, *options)
        assert (result.exit_code, result.stderr) == (0, "")
        lines = [line.split() for line in result.stdout.splitlines()]
        at = lines.index(["vm", "time", "count", "p50", "p90", "p99", "p99.9", "most"])
        rows = [line[:3] for line in lines[at + 2 : -1]]
        assert [row[:2] for row in rows] == [["web", "wake"], ["web", "response"]]
        document = json.loads(call(tmp_path, text, *options, "--json").stdout)
        latencies = document["latencies"]
        assert latencies["relative_error"] == 1 / 64
        assert [row["vm"] for row in latencies["vms"]] == ["web", "web"]
        assert [row["vcpu"] for row in latencies["worlds"]] == ["web/0", "web/0"]
        for row, kind in zip(latencies["vms"], ("wakes", "jobs_done"), strict=True):
            assert row["p50_ns"] <= row["p99_ns"] <= row["p99.9_ns"] <= row["most_ns"]
            if kind == "wakes":
                (web,) = (vm for vm in document["vms"] if vm["vm"] == "web")
                assert (row["count"], row["most_ns"]) == (web["wakes"], web["wake_most_ns"])
    off = "percentiles = true" + FILE + WEB + "percentiles = false\n"
    assert "response" not in call(tmp_path, off).stdout
    assert json.loads(call(tmp_path, off, "--json").stdout)["latencies"]["vms"] == []
    assert "latencies" not in json.loads(call(tmp_path, FILE + WEB, "--json").stdout)
    compared = call(tmp_path, FILE + WEB, "--percentiles", "--compare", "rr,stride").stdout
    waked = [line.split()[:3] for line in compared.splitlines() if " wake  " in line]
    assert [line for line in waked if line[1] == "web"] == [
        *(["rr", "web", "wake"], ["stride", "web", "wake"])
    ]
    refused = call(tmp_path, "percentiles = 1" + FILE)
    assert refused.exit_code == 2
    assert refused.stderr.strip().endswith("percentiles must be true or false, got 1")


def test_homes_are_shown_where_there_are_some(tmp_path: Path):
    text = (Path(EXAMPLES[0]).parent / "sched_numa.toml").read_text()
    result = call(tmp_path, text)
    assert (result.exit_code, result.stderr) == (0, "")
    lines = [line.split() for line in result.stdout.splitlines()]
    at = lines.index(["vm", "NHN", "NMIG", "NRMEM", "NLMEM", "N%L", "mean", "N%L"])
    rows = {line[0]: line[1:] for line in lines[at + 2 : -1]}
    assert list(rows) == ["db", "trial", "web-1", "web-2", "web-3", "web-4", "wide"]
    assert rows["wide"][:2] == ["0,1", "0"]
    assert [rows[f"web-{i}"][1] for i in range(1, 5)] == ["1", "0", "1", "0"]
    # two seconds at 1,000 MB a second, of 4,096
    assert 0 < float(rows["web-3"][4]) < 100 == float(rows["web-2"][4])
    compared = call(tmp_path, text, "--compare", "percpu,stride", "--worlds").stdout
    assert compared.count(" percpu   wide/") == 12
    assert compared.count(" stride   wide/") == 6


def test_files(tmp_path: Path):
    batch, trace = tmp_path / "b.csv", tmp_path / "t.json"
    plain = call(tmp_path, FILE + WEB)
    result = call(tmp_path, FILE + WEB, "--esxtop", str(batch), "--trace", str(trace))
    assert result.exit_code == 0
    assert result.stdout == plain.stdout
    table = read_esxtop(batch)
    assert table.host == "host"
    assert table.groups() == ("big", "small", "capped", "web")
    assert table.group("capped")["% Run"].tolist() == [10, 10, 10]
    events = json.loads(trace.read_text())["traceEvents"]
    assert {e["name"] for e in events if e["ph"] == "X" and e["pid"] == 1} == {
        *("big/0", "big/1", "small", "capped", "web")
    }


def test_plot(tmp_path: Path):
    pytest.importorskip("matplotlib")
    for name, options in (("all.png", []), ("part.svg", ["--window", "10ms-25.5ms"])):
        result = call(tmp_path, FILE, "--plot", str(tmp_path / name), *options)
        assert (result.exit_code, result.stderr) == (0, "")
        assert (tmp_path / name).stat().st_size > 5000


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (FILE.replace('"high"', '"hgih"'), [], "host.toml:9: vm[0].shares must be one of low"),
        (FILE.replace("cpus", "cpsu", 1), [], "host.toml lacks 'cpus', the number of CPUs; it has"),
        ("cpus = [", [], "host.toml: "),
        (FILE, ["--compare", "rr,stied"], "must be one of rr, stride"),
        (FILE, ["--compare", ""], "must be one of rr, stride"),
        (FILE, ["--compare", "rr", "--trace", "x"], "--compare writes no files"),
        (FILE, ["--window", "0s-1s"], "--window needs --plot"),
        (FILE, ["--plot", "x.png", "--window", "1s"], "'1s' is not FROM-TO"),
        (FILE, ["--plot", "x.png", "--window", "1s-1s"], "must end after it begins"),
        (FILE, ["--plot", "x.png", "--window", "1-2"], "must be a time with its unit"),
        (FILE, ["--plot", "x.gif"], "must end in one of .png"),
        (FILE, ["--plot", "x.png", "--window", "5s-6s"], "from 1 to 20,000 stretches"),
        (FILE, ["--trace", "no/such/folder/x"], "No such file or directory"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(tmp_path: Path, text: str, options: list[str], message: str):
    result = call(tmp_path, text, *options)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert message in result.stderr
    assert result.stderr.startswith("pyvirt: error: ")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_examples_run(example: Path, tmp_path: Path):
    trace = tmp_path / "t.json"
    arguments = ["sched", str(example), "--json", "--trace", str(trace)]
    result = CliRunner().invoke(main, arguments)
    assert (result.exit_code, result.stderr) == (0, "")
    document = json.loads(result.stdout)
    totals = dict.fromkeys((world["world"] for world in document["worlds"]), 0)
    for event in json.loads(trace.read_text())["traceEvents"]:
        if event["ph"] == "X" and event["pid"] == 1:
            totals[event["args"]["world"]] += round(1000 * event["dur"])
    assert totals == {world["world"]: world["run_ns"] for world in document["worlds"]}
