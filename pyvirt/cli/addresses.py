"""Read addresses from text, millions a second: hexadecimal with ``0x``, or decimal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

import click
import numpy as np
import numpy.typing as npt

__all__ = ["AddressType", "parse", "parse_one", "read"]

CHUNK = 1 << 20
_SEPARATORS = bytes.maketrans(b",;", b"  ")
_LIMIT = (1 << 64) - 1


class BadAddressError(click.ClickException):
    """A word that is no address; click shows the message and not a traceback."""


def _refuse(word: str, hexadecimal: bool) -> BadAddressError:
    shown = word if len(word) <= 40 else word[:37] + "..."
    kind = "a hexadecimal address" if hexadecimal else "an address"
    hint = ""
    if not hexadecimal and not word.isdigit() and set(word) <= set("0123456789abcdefABCDEF"):
        hint = "; write 0x before hexadecimal digits, or give --hex"
    return BadAddressError(f"{shown!r} is not {kind} of at most 64 bits{hint}")


def parse(text: bytes, hexadecimal: bool = False) -> npt.NDArray[np.uint64]:
    """Turn words between spaces, commas or line ends into addresses.

    Parameters
    ----------
    text : bytes
        What follows a ``#`` up to the end of a line is ignored.
    hexadecimal : bool
        Whether words without ``0x`` are hexadecimal, too.

    Returns
    -------
    ndarray of uint64
        In order.
    """
    if b"#" in text:
        text = b"\n".join(line.split(b"#", 1)[0] for line in text.split(b"\n"))
    words = text.translate(_SEPARATORS).split()
    try:
        # int() of a word is as fast as anything made of array operations.
        if not any(sign in text for sign in (b"_", b"+", b"-")):  # which int() would take
            return np.array([_number(word, hexadecimal) for word in words], dtype=np.uint64)
    except (ValueError, OverflowError):
        pass
    for word in words:
        try:
            if word.isalnum() and _number(word, hexadecimal) <= _LIMIT:
                continue
        except ValueError:
            pass
        raise _refuse(word.decode("ascii", "backslashreplace"), hexadecimal)
    raise AssertionError("unreachable: one of the words is at fault")


def _number(word: bytes, hexadecimal: bool) -> int:
    return int(word, 16 if hexadecimal or word[:2] in (b"0x", b"0X") else 10)


def parse_one(word: str, hexadecimal: bool = False) -> int:
    """Turn one word into an address."""
    values = parse(word.encode(), hexadecimal)
    if len(values) != 1:
        raise _refuse(word, hexadecimal)
    return int(values[0])


def read(
    stream: BinaryIO, name: str, hexadecimal: bool = False
) -> Iterator[tuple[npt.NDArray[np.uint64], int]]:
    """Read a file of addresses piece by piece.

    Yields
    ------
    (ndarray of uint64, int)
        The addresses of whole lines, and how many bytes have been read so far.
    """
    rest, line, done = b"", 0, 0
    while piece := stream.read(CHUNK):
        done += len(piece)
        whole, newline, tail = (rest + piece).rpartition(b"\n")
        if not newline:
            rest = tail
            if len(rest) > CHUNK * 4:
                raise BadAddressError(f"{name}, line {line + 1}: too long for addresses")
            continue
        yield _located(whole, name, line, hexadecimal), done
        line += whole.count(b"\n") + 1
        rest = tail
    if rest.strip():
        yield _located(rest, name, line, hexadecimal), done


def _located(text: bytes, name: str, line: int, hexadecimal: bool) -> npt.NDArray[np.uint64]:
    """Parse; a message counts lines from the start of the file."""
    try:
        return parse(text, hexadecimal)
    except BadAddressError:
        # Found again line by line, to say where: this happens once.
        for number, row in enumerate(text.split(b"\n"), line + 1):
            try:
                parse(row, hexadecimal)
            except BadAddressError as error:
                raise BadAddressError(f"{name}, line {number}: {error.message}") from None
        raise


class AddressType(click.ParamType):  # type: ignore[type-arg]
    """An option whose value is an address; whether bare words are hexadecimal is --hex's."""

    name = "address"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        """Read one address."""
        if isinstance(value, int):
            return value
        hexadecimal = bool(ctx and ctx.params.get("hexadecimal"))
        try:
            return parse_one(str(value), hexadecimal)
        except BadAddressError as error:
            self.fail(error.message, param, ctx)
