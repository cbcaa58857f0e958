"""A short run of each target; PYVIRT_FUZZ_SECONDS=600 makes it the long one."""

import os

import pytest

from fuzz.run import TARGETS, supervise

SECONDS = float(os.environ.get("PYVIRT_FUZZ_SECONDS", "10"))


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_fuzz(name, tmp_path, monkeypatch):
    tests = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    monkeypatch.setenv("PYTHONPATH", tests, prepend=os.pathsep)
    seed = int.from_bytes(os.urandom(3), "little")
    assert supervise(name, SECONDS, seed, tmp_path) == 0
