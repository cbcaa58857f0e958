"""Gantt charts: what is drawn is what ran."""

from typing import Any

import pytest

from pyvirt.errors import InvalidTypeError, InvalidValueError
from pyvirt.report import gantt
from pyvirt.report.gantt import MOST_SEGMENTS
from pyvirt.sched import Scheduler, Timeline

MS = 1_000_000


@pytest.fixture
def matplotlib() -> Any:
    return pytest.importorskip("matplotlib")


@pytest.fixture
def timeline() -> Timeline:
    host = Scheduler(2, policy="rr", quantum_ns=MS)
    host.record()
    host.add(affinity=[0])
    host.add(affinity=[0])
    host.add(affinity=[1])
    host.run(10 * MS)
    return host.timeline()


def bars(figure: Any) -> list[tuple[float, float, float]]:
    """Left and right ends, and the row, of each bar."""
    (axes,) = figure.axes
    found = []
    for collection in axes.collections:
        for path in collection.get_paths():
            box = path.get_extents()
            found.append((round(box.x0, 9), round(box.x1, 9), round((box.y0 + box.y1) / 2)))
    return sorted(found, key=lambda bar: (bar[2], bar[0]))


def test_cpus(matplotlib: Any, timeline: Timeline):
    figure = gantt(timeline, names={0: "web"})
    assert bars(figure) == [*((i, i + 1, 0) for i in range(10)), (0, 10, 1)]
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["CPU 0", "CPU 1"]
    assert axes.get_xlabel() == "time (ms)"
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        *("web", "world 1", "world 2")
    ]


def test_worlds_and_groups(matplotlib: Any, timeline: Timeline):
    figure = gantt(timeline.segments(), by="world", groups={"pair": (0, 2), "none": (9,)})
    rows = [row for *_, row in bars(figure)]
    assert [rows.count(row) for row in range(3)] == [5, 5, 1]
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["pair", "world 1"]


def test_what_cannot_be_drawn(timeline: Timeline):
    with pytest.raises(InvalidTypeError, match="timeline must be a Timeline or its segments"):
        gantt([1, 2])
    with pytest.raises(InvalidValueError, match="by must be 'cpu' or 'world', got 'vm'"):
        gantt(timeline, by="vm")
    with pytest.raises(InvalidValueError, match=r"from 1 to 20,000 .*got 0"):
        gantt(timeline.segments()[:0])
    with pytest.raises(InvalidValueError, match="got 22,000"):
        gantt(timeline.segments().repeat(MOST_SEGMENTS // 10))
