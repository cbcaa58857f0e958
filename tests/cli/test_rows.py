"""Lines made by array operations are what csv and json read back."""

import csv
import io
import json

import numpy as np

from pyvirt.cli import rows

VALUES = np.array([0, 1, 0xFFFF_8880_0000_1234, (1 << 64) - 1], dtype=np.uint64)
SHOWN = np.array([True, False, True, True])


def columns() -> list[rows.Column]:
    return [
        rows.address("va", VALUES),
        rows.address("pa", VALUES[::-1], SHOWN),
        rows.decimal("n", np.array([5, 70, 5, 1234]), SHOWN, width=6),
        rows.mapped("text", np.array([1, 2, 1, 0]), {0: "ok", 1: "a, b", 2: "it's"}.__getitem__),
    ]


def block(style: rows.Style) -> str:
    return (rows.heading(columns(), style) + rows.lines(columns(), style)).decode()


PA = ["0xffffffffffffffff", None, "0x0000000000000001", "0x0000000000000000"]


def test_csv():
    read = list(csv.DictReader(io.StringIO(block("csv"))))
    assert [int(row["va"], 16) for row in read] == VALUES.tolist()
    assert [row["pa"] or None for row in read] == PA
    assert [row["n"] for row in read] == ["5", "", "5", "1234"]
    assert [row["text"] for row in read] == ["a, b", "it's", "a, b", "ok"]


def test_json():
    read = [json.loads(line) for line in block("json").splitlines()]
    assert [int(row["va"], 16) for row in read] == VALUES.tolist()
    assert [row["pa"] for row in read] == PA
    assert [row["n"] for row in read] == [5, None, 5, 1234]
    assert [row["text"] for row in read] == ["a, b", "it's", "a, b", "ok"]


def test_plain_is_aligned():
    heading, *lines = block("plain").splitlines()
    assert heading.split() == ["va", "pa", "n", "text"]
    assert lines[1].split(maxsplit=3) == ["0x0000000000000001", "-", "-", "it's"]
    at = heading.index("text")
    assert all(line[at - 1] == " " and line[at] != " " for line in lines)
    assert lines[3].split(maxsplit=3)[2:] == ["1234", "ok"]


def test_no_rows():
    empty = [
        rows.address("va", VALUES[:0]),
        rows.decimal("n", VALUES[:0]),
        rows.mapped("t", VALUES[:0], str),
    ]
    for style in ("plain", "csv", "json"):
        assert rows.lines(empty, style) == b""
