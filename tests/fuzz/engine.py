"""A small coverage-guided fuzzer: keeps the inputs that reach something new and changes those.

It is what libFuzzer does, for extensions that gcc compiled with its own sanitizers (atheris
brings clang's, which do not load together with these). What counts as reached:

* edges of compiled code, where `coverage.c` is preloaded and the extensions are instrumented;
* lines of `pyvirt.mmu`, for targets that ask for it (``TRACE = True``);
* the labels that the target returns, such as the kinds of exceptions and result codes met.
"""

from __future__ import annotations

import ctypes
import hashlib
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable, Hashable, Iterable
from pathlib import Path
from types import FrameType

import numpy as np

Target = Callable[[bytes], Iterable[Hashable]]
LONGEST = 4096
MOST_KEPT = 120
SECONDS_PER_INPUT = 60
_EDGES = 1 << 16
# Like AFL: how often an edge was taken counts as one of eight bits.
_BUCKETS = np.zeros(256, np.uint8)
for _low, _bit in ((1, 1), (2, 2), (3, 4), (4, 8), (8, 16), (16, 32), (32, 64), (128, 128)):
    _BUCKETS[_low:] = _bit
_NOTABLE = (0, 1, 2, 3, 7, 8, 16, 31, 32, 63, 64, 100, 127, 128, 129, 200, 250, 254, 255)


class Reached:
    """Everything that inputs have reached so far."""

    def __init__(self, target: Target, trace: bool) -> None:
        self._target = target
        self._trace = trace
        self._lines: set[Hashable] = set()
        try:
            edges = (ctypes.c_uint8 * _EDGES).in_dll(ctypes.CDLL(None), "pv_edges")
        except (ValueError, OSError):
            self._edges = None
        else:
            self._edges = np.frombuffer(edges, np.uint8)

    @property
    def native(self) -> bool:
        """Whether compiled code is watched."""
        return self._edges is not None

    def run(self, data: bytes) -> frozenset[Hashable]:
        """What one input reaches."""
        self._lines = set()
        if self._edges is not None:
            self._edges.view(np.uint64)[:] = 0
        if self._trace:
            sys.settrace(self._enter)
        try:
            labels = self._target(data)
        finally:
            sys.settrace(None)
        features = self._lines | set(labels)
        if self._edges is not None:
            (hit,) = self._edges.nonzero()
            counts = _BUCKETS[self._edges[hit]].astype(np.int64)
            features.update((hit << 8 | counts).tolist())
        return frozenset(features)

    def _enter(self, frame: FrameType, event: str, argument: object) -> object:
        name = frame.f_code.co_filename
        return self._line if "pyvirt" in name and "mmu" in name else None

    def _line(self, frame: FrameType, event: str, argument: object) -> object:
        if event == "line":
            self._lines.add((frame.f_code.co_name, frame.f_lineno))
        return self._line


def changed(rng: random.Random, data: bytes, others: list[bytes]) -> bytes:
    """An input made of another by a few random changes."""
    new = bytearray(data)
    for _ in range(1 << rng.randrange(5)):
        size = len(new)
        at = rng.randrange(size + 1)
        length = min(1 + rng.randrange(1 << rng.randrange(7)), size - at)
        how = rng.randrange(9)
        if how == 0 and size:
            new[rng.randrange(size)] ^= 1 << rng.randrange(8)
        elif how == 1 and size:
            new[rng.randrange(size)] = rng.choice(_NOTABLE)
        elif how == 2 and size:
            new[rng.randrange(size)] = rng.randrange(256)
        elif how == 3:
            new[at:at] = rng.randbytes(1 + rng.randrange(8))
        elif how == 4:
            del new[at : at + length]
        elif how == 5 and size:
            start = rng.randrange(size)
            new[at : at + length] = new[start : start + length]
        elif how == 6 and others:
            other = rng.choice(others)
            start = rng.randrange(len(other) + 1)
            new[at : at + length] = other[start : start + length]
        elif how == 7 and others:
            other = rng.choice(others)
            new[at:] = other[rng.randrange(len(other) + 1) :] if rng.random() < 0.5 else other[at:]
        else:
            new[at : at + length] = rng.randbytes(length)
    return bytes(new[:LONGEST])


def fuzz(
    target: Target,
    corpus: list[bytes],
    seconds: float,
    seed: int,
    work: Path,
    trace: bool = False,
) -> dict[str, int]:
    """Run a target on changed inputs for a while.

    Inputs that reach something new go to ``work/queue``, those that fail to ``work/failures``
    with their traceback. ``work/current`` holds the input that is running, for whoever finds
    the process dead.
    """
    rng = random.Random(seed)
    reached = Reached(target, trace)
    seen: set[Hashable] = set()
    queue: list[bytes] = []
    failures: set[tuple[str, ...]] = set()
    for name in ("queue", "failures"):
        (work / name).mkdir(parents=True, exist_ok=True)
    current = work / "current"
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ends the process, even within compiled code
    first = [*corpus, b"", *(rng.randbytes(1 << n) for n in range(2, 13) for _ in range(3))]
    began = reported = time.monotonic()
    executions = 0
    while (now := time.monotonic()) < began + seconds:
        if now > reported + 30:
            reported = now
            print(
                f"{now - began:.0f} s: {executions} executions, {len(queue)} inputs, "
                f"{len(seen)} features, {len(failures)} failures",
                flush=True,
            )
        if first:
            data = first.pop()
        elif rng.random() < 0.02 or not queue:
            data = rng.randbytes(rng.randrange(LONGEST))
        else:
            recent = queue[-50:] if rng.random() < 0.3 else queue
            data = changed(rng, rng.choice(recent), queue)
        current.write_bytes(data)
        executions += 1
        signal.alarm(SECONDS_PER_INPUT)
        try:
            features = reached.run(data)
        except Exception as error:
            kind = failure_of(error)
            if kind not in failures:
                failures.add(kind)
                name = work / "failures" / digest(data)
                name.write_bytes(data)
                name.with_suffix(".txt").write_text(traceback.format_exc())
                print(f"FAILURE {name}\n{traceback.format_exc()}", flush=True)
            continue
        finally:
            signal.alarm(0)
        if not features <= seen:
            seen |= features
            queue.append(data)
            (work / "queue" / digest(data)).write_bytes(data)
    return {
        "executions": executions,
        "seconds": round(time.monotonic() - began),
        "inputs": len(queue),
        "features": len(seen),
        "failures": len(failures),
        "native": int(reached.native),
    }


def minimised(
    target: Target, inputs: Iterable[bytes], most_bytes: int, trace: bool = False
) -> list[bytes]:
    """Few and short inputs that together reach what all do, or most of it within the limit."""
    reached = Reached(target, trace)
    results = []
    for data in sorted(set(inputs), key=len):
        signal.alarm(SECONDS_PER_INPUT)
        try:
            results.append((data, reached.run(data)))
        except Exception:
            continue
        finally:
            signal.alarm(0)
    kept: list[bytes] = []
    seen: set[Hashable] = set()
    room = most_bytes
    while results and len(kept) < MOST_KEPT:
        # the most new features for each byte, where a file costs something too
        gains = [
            (len(found - seen) / (len(data) + 64), i)
            for i, (data, found) in enumerate(results)
            if len(data) <= room
        ]
        if not gains or max(gains)[0] == 0:
            break
        data, found = results.pop(max(gains)[1])
        kept.append(data)
        seen |= found
        room -= len(data)
        results = [(other, left) for other, features in results if (left := features - seen)]
    return kept


def failure_of(error: BaseException) -> tuple[str, ...]:
    """What makes two failures the same: the exception and where it was raised."""
    last = traceback.extract_tb(error.__traceback__)[-2:]
    return type(error).__name__, *(f"{frame.name}:{frame.lineno}" for frame in last)


def digest(data: bytes) -> str:
    """A file name for an input."""
    return hashlib.sha256(data).hexdigest()[:16]
