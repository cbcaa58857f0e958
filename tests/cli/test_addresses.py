"""The reader of addresses against Python's own int()."""

import io

import click
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyvirt.cli import addresses

LIMIT = 1 << 64
NUMBERS = st.one_of(
    st.integers(0, LIMIT - 1), st.integers(LIMIT - 20, LIMIT + 20), st.integers(10**19 - 9, 10**19)
)
SPACES = st.text(" \t\n,;", min_size=1, max_size=3)


@given(st.lists(st.tuples(NUMBERS, st.sampled_from(["d", "#x", "#X", "x"]), SPACES)))
def test_as_int(numbers):
    hexadecimal = any(form == "x" for _, form, _ in numbers)
    if hexadecimal:
        numbers = [(n, "x" if form == "d" else form, space) for n, form, space in numbers]
    text = "".join(format(n, form) + space for n, form, space in numbers).encode()
    if all(n < LIMIT for n, _, _ in numbers):
        result = addresses.parse(text, hexadecimal)
        assert result.dtype == np.uint64
        assert result.tolist() == [n for n, _, _ in numbers]
    else:
        with pytest.raises(click.ClickException, match="of at most 64 bits"):
            addresses.parse(text, hexadecimal)


@given(st.binary(max_size=60), st.booleans())
def test_any_bytes(text: bytes, hexadecimal: bool):
    def number(word: str) -> int:
        prefix = word[:2] in ("0x", "0X")
        digits = word[2:] if prefix else word
        base = 16 if prefix or hexadecimal else 10
        if not digits or any(
            c not in "0123456789abcdefABCDEF"[: 22 if base == 16 else 10] for c in digits
        ):
            raise ValueError(word)
        if int(digits, base) >= LIMIT:
            raise ValueError(word)
        return int(digits, base)

    clean = b"\n".join(line.split(b"#")[0] for line in text.split(b"\n"))
    words = clean.decode("latin-1").replace(",", " ").replace(";", " ")
    for other in "\x1c\x1d\x1e\x1f\x85\xa0":  # white space to Python only
        words = words.replace(other, "?")
    try:
        expected = [number(word) for word in words.split()]
    except ValueError:
        with pytest.raises(click.ClickException):
            addresses.parse(text, hexadecimal)
    else:
        assert addresses.parse(text, hexadecimal).tolist() == expected


def test_leading_zeros_and_hostile_length():
    assert addresses.parse(b"0" * 39 + b"7").tolist() == [7]
    assert addresses.parse(b"0x" + b"0" * 24 + b"f" * 16).tolist() == [LIMIT - 1]
    for word in (b"9" * 100_000, b"0x" + b"1" * 17):
        with pytest.raises(click.ClickException) as info:
            addresses.parse(word)
        assert len(info.value.message) < 120


@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
def test_pieces_join_up(monkeypatch: pytest.MonkeyPatch, newline: bytes):
    monkeypatch.setattr(addresses, "CHUNK", 50)
    numbers = list(range(0, 1 << 40, (1 << 40) // 97))
    text = newline.join(b"%d" % n if i % 2 else b"%#x" % n for i, n in enumerate(numbers))
    pieces = list(addresses.read(io.BytesIO(text), "list"))
    assert len(pieces) > 20
    assert np.concatenate([values for values, _ in pieces]).tolist() == numbers
    assert pieces[-1][1] == len(text)


def test_the_line_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(addresses, "CHUNK", 50)
    text = b"# list\n" + b"0x1000\n" * 40 + b"0x10g0\n" + b"1\n" * 30
    with pytest.raises(click.ClickException, match=r"^list, line 42: '0x10g0' is not an address"):
        list(addresses.read(io.BytesIO(text), "list"))


def test_a_file_of_no_lines_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(addresses, "CHUNK", 50)
    with pytest.raises(click.ClickException, match="line 1: too long"):
        list(addresses.read(io.BytesIO(b"1 " * 500), "list"))


def test_bare_hexadecimal_gets_a_hint():
    with pytest.raises(click.ClickException, match="--hex"):
        addresses.parse(b"3aee000")
    assert addresses.parse(b"3aee000", True).tolist() == [0x3AEE000]
