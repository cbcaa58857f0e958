import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyvirt.errors import InvalidTypeError, InvalidValueError, PyvirtError
from pyvirt.units import format_size, format_time, parse_size, parse_time


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, 0),
        (4096, 4096),
        (np.uint64(1 << 40), 1 << 40),
        ("0", 0),
        ("4096", 4096),
        ("0x1000", 4096),
        ("0X1fK", 0x1F << 10),
        ("4GiB", 4 << 30),
        ("256 MiB", 256 << 20),
        ("256m", 256 << 20),
        (" 1.5 gib ", 3 << 29),
        ("0.5KiB", 512),
        ("12 B", 12),
        ("2T", 2 << 40),
        ("1PiB", 1 << 50),
        ("1e", 1 << 60),
    ],
)
def test_accepts(value, expected):
    assert parse_size(value) == expected


@pytest.mark.parametrize(
    "value", ["", " ", "GiB", "-1", -1, "1..5G", "0x", "4 GiB 2", "4GiBs", "1.5", "0.3K", "1_000"]
)
def test_refuses_values(value):
    with pytest.raises(InvalidValueError, match="size"):
        parse_size(value)


@pytest.mark.parametrize("value", ["٤GiB", "１", "4K\u212a"])
def test_refuses_digits_and_letters_of_other_scripts(value):
    with pytest.raises(InvalidValueError):
        parse_size(value)


@pytest.mark.parametrize("value", [None, 1.0, b"4GiB", True, [], object()])
def test_refuses_types(value):
    with pytest.raises(InvalidTypeError, match="memory must be bytes as an integer"):
        parse_size(value, "memory")


def test_decimal_units_are_ambiguous():
    with pytest.raises(InvalidValueError, match="write GiB for powers of 1024"):
        parse_size("4GB")


@pytest.mark.parametrize(
    ("n", "text"),
    [
        (0, "0 B"),
        (4097, "4097 B"),
        (256 << 20, "256 MiB"),
        (3 << 29, "1.5 GiB"),
        (1 << 52, "4 PiB"),
    ],
)
def test_format(n, text):
    assert format_size(n) == text


@given(st.integers(0, 1 << 62))
def test_format_round_trip(n):
    assert parse_size(format_size(n)) == n


@given(st.text())
def test_any_text_gives_a_size_or_a_named_error(text):
    try:
        assert parse_size(text) >= 0
    except PyvirtError:
        pass


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("10ms", 10**7),
        ("1.5 s", 1_500_000_000),
        (" 250us ", 250_000),
        ("0 ns", 0),
        ("2min", 120 * 10**9),
        ("0.5h", 1800 * 10**9),
        ("0.000001ms", 1),
    ],
)
def test_times(text, ns):
    assert parse_time(text) == ns


@pytest.mark.parametrize(
    "text", ["", "10", "ms", "-1s", "1e3ms", "10 MS", "0x10ms", "0.5ns", "1 d"]
)
def test_what_is_no_time(text):
    with pytest.raises(InvalidValueError, match="slice"):
        parse_time(text, "slice")


@pytest.mark.parametrize("value", [10, 1.5, None, True, b"1s"])
def test_times_need_a_unit(value):
    with pytest.raises(InvalidTypeError, match="slice must be a time with its unit"):
        parse_time(value, "slice")


@given(st.integers(0, 10**18))
def test_formatted_times_are_near(ns):
    number, unit = format_time(ns).split()
    back = float(number.replace(",", "")) * {"ns": 1, "us": 1e3, "ms": 1e6, "s": 1e9}[unit]
    assert back == pytest.approx(ns, rel=6e-4)
