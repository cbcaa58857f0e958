"""Every kept input again, each in its target: quick, and part of the run under sanitizers."""

import random

import pytest

from fuzz import engine
from fuzz.run import CORPUS, TARGETS, corpus_of, target_of


@pytest.mark.parametrize("name", TARGETS)
def test_replay(name):
    inputs = corpus_of(name)
    assert inputs, f"no kept inputs of {name}"
    for data in inputs:
        try:
            target_of(name).one_input(data)
        except Exception as error:
            error.add_note(f"in {CORPUS.name}/{name}/*{engine.digest(data)}")
            raise


def test_corpus_is_small():
    assert sum(path.stat().st_size for path in CORPUS.rglob("*")) < 400 << 10


def test_engine_finds_and_keeps(tmp_path):
    """A failure that needs two steps is found, and what reached the first one is kept."""

    def target(data):
        reached = {"begun"}
        if data[:1] >= b"\xc0":
            reached.add("first")
            if data[1:2] >= b"\xc0":
                raise LookupError("both")
        return reached

    for seed in range(20):
        found = engine.fuzz(target, [bytes(4)], 0.5, seed, tmp_path)
        if found["failures"]:
            break
    failures = [path for path in (tmp_path / "failures").iterdir() if not path.suffix]
    assert min(failures[0].read_bytes()[:2]) >= 0xC0
    queue = [path.read_bytes() for path in (tmp_path / "queue").iterdir()]
    kept = engine.minimised(lambda data: {data[:1] == b"\x80"}, [*queue, b"\x80", b""], 100)
    assert sorted(kept) == [b"", b"\x80"]


def test_changes_stay_within_bounds():
    rng = random.Random(0)
    data = b""
    for _ in range(2000):
        data = engine.changed(rng, data, [data, b"other"])
        assert len(data) <= engine.LONGEST
