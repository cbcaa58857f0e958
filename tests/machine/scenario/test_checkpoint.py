"""Runs that are killed go on, and come to the identical result; what cannot be written says so."""

import os
import resource
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest

from pyvirt.errors import InvalidValueError, OutputError
from pyvirt.machine.scenario import Checkpoint, Scenario
from pyvirt.spec import load_scenario

TEXT = """
duration = "40s"
step = "2s"
mode = "{mode}"
seed = 5
[policies]
drs = {{interval = "6s"}}
ha = {{}}
[[cluster.hosts]]
name = "a"
cpus = 2
mhz = 2000
memory = "4GiB"
[[cluster.hosts]]
name = "b"
cpus = 2
mhz = 2000
memory = "4GiB"
[[cluster.vms]]
name = "busy"
vcpus = 2
host = "a"
memory = "3GiB"
workload = {{memory = {{active = "2GiB", touch_rate = "100MiB"}}}}
[[cluster.vms]]
name = "web"
vcpus = 2
host = "a"
memory = "3GiB"
[cluster.vms.workload]
cpu = {{kind = "onoff", mhz = 3000, on = "20ms", off = "30ms", distribution = "exponential"}}
memory = {{active = "1GiB", dirty_rate = "100MiB"}}
[[faults]]
at = "15s"
what = "host"
target = "b"
recover_after = "12s"
"""


@pytest.fixture(params=["exact", "demand"])
def scenario(request, tmp_path):
    path = tmp_path / "scenario.toml"
    path.write_text(TEXT.format(mode=request.param))
    return Scenario(load_scenario(path))


def same(one, other):
    assert one.events == other.events
    assert one.monitors == other.monitors
    for mine, theirs in ((one.hosts, other.hosts), (one.vms, other.vms)):
        for name, values in mine.items():
            assert np.array_equal(values, theirs[name]), name


@pytest.mark.parametrize("stop_s", [0.5, 7, 15.1, 20, 39])
def test_a_run_goes_on_where_it_was_kept(scenario, tmp_path, stop_s):
    kept = Checkpoint(tmp_path / "kept")
    engine = scenario.engine()
    engine.run(int(stop_s * 1e9))
    kept.write(engine, scenario.spec)
    same(scenario.run(checkpoint=kept.path), scenario.run())
    assert not kept.path.exists()


def test_a_checkpoint_of_another_run_is_refused(scenario, tmp_path):
    kept = Checkpoint(tmp_path / "kept")
    kept.write(scenario.engine(), scenario.spec)
    before = kept.path.read_bytes()
    with pytest.raises(InvalidValueError, match="its seed differs"):
        scenario.run(seed=6, checkpoint=kept)
    with pytest.raises(InvalidValueError, match="its until_ns differs"):
        scenario.run("10s", checkpoint=kept)
    with pytest.raises(InvalidValueError, match="its scenario differs"):
        Scenario(scenario.spec.replace(name="other")).run(checkpoint=kept)
    assert kept.path.read_bytes() == before
    kept.path.write_bytes(before[: len(before) // 2])
    with pytest.raises(InvalidValueError, match="damaged"):
        scenario.run(checkpoint=kept)


def test_what_cannot_be_written_leaves_what_was_there(scenario, tmp_path):
    with pytest.raises(OutputError, match="cannot be written"):
        Checkpoint(tmp_path / "nowhere" / "kept").write(scenario.engine(), scenario.spec)
    kept = Checkpoint(tmp_path / "kept")
    kept.path.write_text("before")
    engine = scenario.engine()
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, old[1]))
    try:
        with pytest.raises(OutputError, match="kept cannot be written"):
            kept.write(engine, scenario.spec)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, ignored)
    assert kept.path.read_text() == "before"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


RUN = """
    import sys
    from pyvirt.machine.scenario import Checkpoint, Scenario
    scenario = Scenario.load(sys.argv[1])
    kept = Checkpoint(sys.argv[2], every_s=0.0)
    scenario.run(checkpoint=kept, tell=lambda now: print(now, flush=True))
"""


def kill_after(path, kept, lines):
    """Run in a process of its own, and kill that once it has told so many times of its progress."""
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(RUN), str(path), str(kept)],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        for _ in range(lines):
            if not process.stdout.readline():
                break
        process.send_signal(signal.SIGKILL)
        process.communicate()


def test_a_killed_run_comes_to_the_identical_result(scenario, tmp_path):
    path, kept = tmp_path / "scenario.toml", tmp_path / "kept"
    kill_after(path, kept, 12)
    found = Checkpoint(kept).load(scenario.spec, 5, scenario.spec.duration_ns)
    assert found is not None
    assert 0 < found.now < found.until
    same(scenario.run(checkpoint=kept), scenario.run())


@pytest.mark.slow
def test_killed_again_and_again(scenario, tmp_path):
    """At random moments, not between its own turns."""
    path, kept = tmp_path / "scenario.toml", tmp_path / "kept"
    rng = np.random.default_rng(1)
    whole = scenario.run()
    command = [sys.executable, "-c", textwrap.dedent(RUN), str(path), str(kept)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        began = time.monotonic()
        process.communicate()
        lasts = time.monotonic() - began
    found = 0
    for _ in range(25):
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(lasts * float(rng.uniform(0, 0.9)))
            process.send_signal(signal.SIGKILL)
            process.communicate()
        for left in tmp_path.glob(".kept.*"):
            os.unlink(left)  # what was being written when it was killed; never the final name
        if kept.exists():
            # it goes on from a copy, and the next process from the file itself
            found += 1
            copy = tmp_path / "copy"
            copy.write_bytes(kept.read_bytes())
            same(scenario.run(checkpoint=copy), whole)
    assert found >= 5
