"""Traces of real programs: the one that the examples carry, and one recorded here and now."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from pyvirt import traces
from pyvirt.traces import Op

SHIPPED = Path(__file__).parents[2] / "docs" / "examples" / "data" / "mawk-hash.lackey.xz"


def guest_instructions(log):
    """What lackey itself counted."""
    return int(re.search(rb"guest instrs: +([\d,]+)", log)[1].replace(b",", b""))


@pytest.mark.skipif(not SHIPPED.exists(), reason="the documentation is not beside the tests")
def test_shipped_trace():
    found = traces.summarise(traces.open(SHIPPED))
    assert found.counts == {"LOAD": 781472, "STORE": 438668, "FETCH": 3390487, "MODIFY": 6981}
    assert found.events == 4_617_608
    assert found.pages == {"4K": 284, "2M": 6}
    assert SHIPPED.stat().st_size <= 400 << 10


def test_live(tmp_path):
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        pytest.skip("valgrind is not installed")
    log = tmp_path / "true.lackey"
    command = [valgrind, "--tool=lackey", "--trace-mem=yes", "--basic-counts=yes"]
    # not with what the tests themselves may run under, as a sanitizer's library
    plain = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    done = subprocess.run([*command, f"--log-file={log}", "/bin/true"], check=False, env=plain)
    if done.returncode or not log.exists():
        pytest.skip(f"valgrind ended with {done.returncode}")
    text = log.read_bytes()
    events = traces.read(log)
    assert int((events["op"] == Op.FETCH).sum()) == guest_instructions(text)
    accesses = sum(
        re.match(rb"(I | [LSM]) [0-9a-f]", line) is not None for line in text.split(b"\n")
    )
    assert len(events) >= accesses > 10_000
    again = tmp_path / "again.lackey"
    traces.write(again, events)
    assert [line for line in text.split(b"\n") if not line.startswith(b"==")] == (
        again.read_bytes().split(b"\n")
    )
