"""What Chrome's Trace Event Format asks of the events that we write."""

from __future__ import annotations

import json
from decimal import Decimal

COMMON = {"ph", "pid", "tid", "name", "ts"}
FIELDS = {
    "M": {"ph", "pid", "tid", "name", "args"},
    "X": COMMON | {"cat", "dur"},
    "C": COMMON | {"args"},
    "i": COMMON | {"cat", "s"},
    "s": COMMON | {"cat", "id"},
    "f": COMMON | {"cat", "id", "bp"},
}


def check_form(text: str) -> list[dict]:
    """Check what the format asks of a trace; gives its complete events."""
    return [event for event in check_events(text) if event["ph"] == "X"]


def check_events(text: str) -> list[dict]:
    """Check what the format asks of a trace; gives all of its events."""
    document = json.loads(text, parse_float=Decimal)
    assert set(document) == {"displayTimeUnit", "traceEvents"}
    assert document["displayTimeUnit"] in ("ns", "ms")
    named = set()
    complete: dict[tuple[int, int], list[dict]] = {}
    for event in document["traceEvents"]:
        track = (event["pid"], event["tid"])
        assert isinstance(event["pid"], int)
        assert isinstance(event["tid"], int)
        assert isinstance(event["name"], str)
        assert set(event) - {"args"} == FIELDS[event["ph"]] - {"args"}
        if event["ph"] == "M":
            assert event["name"] in ("process_name", "thread_name")
            assert isinstance(event["args"]["name"], str)
            named.add((event["name"], *track))
            continue
        assert event["ts"] >= 0
        if event["ph"] == "C":
            assert event["args"]
            assert all(isinstance(value, (int, Decimal)) for value in event["args"].values())
            assert ("process_name", event["pid"], 0) in named
        elif event["ph"] == "i":
            assert event["s"] in ("g", "p", "t")
        else:
            # a track has its name before its events
            assert ("thread_name", *track) in named
        if event["ph"] == "X":
            assert isinstance(event["cat"], str)
            assert event["dur"] >= 0
            complete.setdefault(track, []).append(event)
    _check_flows(document["traceEvents"], complete)
    return document["traceEvents"]


def _check_flows(events: list[dict], complete: dict[tuple[int, int], list[dict]]) -> None:
    """A flow has one beginning and one end, in this order, each within a complete event."""
    ends: dict[tuple[str, str, int], list[dict]] = {}
    for event in events:
        if event["ph"] in "sf":
            ends.setdefault((event["cat"], event["name"], event["id"]), []).append(event)
            around = complete[event["pid"], event["tid"]]
            assert any(one["ts"] <= event["ts"] <= one["ts"] + one["dur"] for one in around)
    for source, target in ends.values():
        assert (source["ph"], target["ph"], target["bp"]) == ("s", "f", "e")
        assert source["ts"] <= target["ts"]
