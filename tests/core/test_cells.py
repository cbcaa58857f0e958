"""The parser of tables of text: numbers as Python reads them, keys, what is refused and where."""

import math
import pickle

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pyvirt._core.cells import Keys, count_lines, parse_cells
from pyvirt.errors import InvalidTypeError

SKIP, NUMBER, OPTIONAL, KEY = range(4)
DONE, BAD_NUMBER, NOT_FINITE, BAD_COLUMNS, EMPTY = range(5)


def parse(text: bytes, kinds, separator=","):
    lines = count_lines(text)
    keys = [Keys() for kind in kinds if kind == KEY]
    numbers = np.full((sum(kind in (NUMBER, OPTIONAL) for kind in kinds), lines), -9.0)
    codes = np.full((len(keys), lines), -9, np.int64)
    done = parse_cells(text, ord(separator), bytes(kinds), keys, numbers, codes)
    return done, numbers[:, : done[1]], codes[:, : done[1]], [one.names() for one in keys]


def by_python(text: str) -> float | None:
    """What `float` makes of it, but for the forms that only it takes."""
    if "_" in text or not text.isascii():
        return None
    try:
        return float(text)
    except ValueError:
        return None


DIGITS = st.text("0123456789", max_size=25)
WRITTEN = st.builds(
    "{}{}{}{}{}".format,
    st.sampled_from(["", "-", "+"]),
    DIGITS,
    st.sampled_from(["", "."]),
    DIGITS,
    st.one_of(st.just(""), st.integers(-400, 400).map("e{}".format), st.sampled_from(["e", "E+"])),
)
TEXTS = st.one_of(
    WRITTEN,
    st.floats().map(repr),
    st.floats(allow_nan=False).map("{:.17e}".format),
    st.integers(-(10**30), 10**30).map(str),
    st.sampled_from(["nan", "NaN", "-inf", "infinity", "1_0", "0x10", "--1", "1 2", "", ".", "1e"]),
)


@given(st.lists(TEXTS, min_size=1, max_size=8))
@example(["9007199254740993", "9007199254740992.5", "1.0000000000000002220446049250313e0"])
@example(["18446744073709551615", "9999999999999999999e-22", "0.3", "8.5e22", "123456789e-23"])
def test_numbers_are_those_of_python(texts):
    for text in texts:
        (status, *_), numbers, _, _ = parse(text.encode() or b",", [OPTIONAL] * (1 + (not text)))
        want = by_python(text) if text else math.nan
        if want is None:
            assert status == BAD_NUMBER, text
        elif math.isinf(want):
            assert status == NOT_FINITE, text
        elif math.isnan(want):
            assert status == DONE
            assert math.isnan(numbers[0, 0])
        else:
            assert status == DONE, text
            assert numbers[0, 0] == want, text
            assert math.copysign(1, numbers[0, 0]) == math.copysign(1, want)


CELLS = st.text('ab0.,;\t "-e9é', max_size=6)


@given(st.lists(st.lists(CELLS, min_size=1, max_size=4), max_size=6), st.sampled_from(",;"))
def test_tables_against_split(rows, separator):
    kinds = [KEY, OPTIONAL, SKIP]
    text = "\n".join(separator.join(row) for row in rows).encode()
    want, keys = [], {}
    failed = None
    for number, raw in enumerate(text.decode().split("\n")):
        if not raw.strip(" \t"):
            continue
        cells = raw.split(separator)
        bare = [cell.strip(" \t") for cell in cells]
        bare = [
            cell[1:-1].strip(" \t") if len(cell) > 1 and cell[0] == cell[-1] == '"' else cell
            for cell in bare
        ]
        if not bare[0]:
            failed = EMPTY, number
            break
        code = keys.setdefault(bare[0], len(keys))
        value = by_python(bare[1]) if len(bare) > 1 else None
        if len(bare) > 1 and bare[1] and value is None:
            failed = BAD_NUMBER, number
            break
        if len(bare) != 3:
            failed = BAD_COLUMNS, number
            break
        want.append((code, value if bare[1] else math.nan))
    done, numbers, codes, names = parse(text, kinds, separator)
    if failed:
        assert (done[0], done[2]) == failed
    else:
        assert done[0] == DONE
    assert done[1] == len(want)
    assert names == [list(keys)]
    assert codes[0].tolist() == [code for code, _ in want]
    assert np.array_equal(numbers[0], [value for _, value in want], equal_nan=True)


def test_many_keys():
    texts = [f"key{i * i % 9973}" for i in range(20_000)]
    order = list(dict.fromkeys(texts))
    _, _, codes, names = parse("\n".join(texts).encode(), [KEY])
    assert names == [order]
    place = {text: i for i, text in enumerate(order)}
    assert codes[0].tolist() == [place[text] for text in texts]
    assert len(Keys()) == 0
    with pytest.raises(TypeError, match="pickled"):
        pickle.dumps(Keys())


def test_where_it_went_wrong():
    text = b"1;2\n\n3; x7 \n"
    status, rows, line, column, first, last = parse(text, [NUMBER, NUMBER], ";")[0]
    assert (status, rows, line, column) == (BAD_NUMBER, 1, 2, 1)
    assert text[first:last] == b"x7"
    assert parse(b"1,\n", [NUMBER, NUMBER])[0][0] == EMPTY
    assert parse(b"nan\n", [NUMBER])[0][0] == NOT_FINITE
    assert parse(b"1" * 500, [NUMBER])[0][0] == BAD_NUMBER
    assert parse(b"1\0", [NUMBER])[0][0] == DONE  # white space, as other control characters
    assert parse(b"1\x002", [NUMBER])[0][0] == BAD_NUMBER


def test_misuse():
    numbers, codes = np.empty((1, 1)), np.empty((0, 1), np.int64)
    for kinds, keys in ((b"", []), (b"\1\1", []), (b"\3", [1]), (b"\1", [Keys()])):
        with pytest.raises(InvalidTypeError, match="parse_cells"):
            parse_cells(b"1\n", 44, kinds, keys, numbers, codes)
    with pytest.raises(InvalidTypeError, match="Keys"):
        parse_cells(b"1\n", 44, b"\3", [1], np.empty((0, 1)), np.empty((1, 1), np.int64))
    with pytest.raises(InvalidTypeError, match="no room for 2 lines"):
        parse_cells(b"1\n2", 44, b"\1", [], numbers, codes)
    assert [count_lines(text) for text in (b"", b"\n", b"a", b"a\n", b"a\nb")] == [0, 1, 1, 1, 2]
