"""Sizes and times as people write them: ``"4GiB"``, ``"0x1000"``, ``"2.5 ms"``."""

from __future__ import annotations

import operator
import re
from typing import SupportsIndex

from pyvirt.errors import InvalidTypeError, InvalidValueError

__all__ = ["format_size", "format_time", "parse_frequency", "parse_size", "parse_time"]

_PREFIXES = "KMGTPE"
# The binary units, and the single letters that QEMU, dd and VMware's tools use for them.
_UNITS = {"": 1, "b": 1}
_UNITS |= {p.lower() + "ib": 1024**i for i, p in enumerate(_PREFIXES, 1)}
_UNITS |= {p.lower(): 1024**i for i, p in enumerate(_PREFIXES, 1)}
_DECIMAL = {p.lower() + "b": p for p in _PREFIXES}
_NUMBER = re.compile(r"\s*(0[xX][0-9a-fA-F]+|[0-9]+(?:\.[0-9]+)?)\s*([a-zA-Z]*)\s*", re.ASCII)
_TIMES = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9, "min": 60 * 10**9, "h": 3600 * 10**9}
_FREQUENCIES = {"hz": 1e-6, "khz": 1e-3, "mhz": 1.0, "ghz": 1e3}
_FREQUENCY_ACCEPTED = 'MHz as a number, or text such as "2.6GHz" or "800 MHz" (Hz, kHz, MHz, GHz)'
_TIME_ACCEPTED = 'a time with its unit, such as "10ms", "1.5 s" or "250us" (ns, us, ms, s, min, h)'
_ACCEPTED = 'bytes as an integer, or text such as "4GiB", "1.5 GiB", "256M" or "0x1000"'


def parse_size(value: str | SupportsIndex, name: str = "size") -> int:
    """Turn a size into a number of bytes.

    Parameters
    ----------
    value : int or str
        Bytes, or text: a decimal number (a fraction is fine where it comes to whole bytes) with
        a binary unit, B, KiB, MiB, GiB, TiB, PiB or EiB, of which the first letter is enough
        and whose case does not matter; or a hexadecimal number of bytes.
    name : str, default "size"
        The argument that messages name.

    Returns
    -------
    int
        Bytes, not negative.

    Raises
    ------
    InvalidValueError
        For other text, a negative number, or a decimal unit such as "GB", which some tools take
        for 10**9 and others for 2**30.
    InvalidTypeError
        For another type.

    Examples
    --------
    >>> parse_size("256 MiB")
    268435456
    >>> parse_size("0x1000")
    4096
    """
    if not isinstance(value, str):
        return _whole(value, name)
    match = _NUMBER.fullmatch(value)
    if match is None:
        raise InvalidValueError(f"{name} must be {_ACCEPTED}, got {value!r:.80}")
    number, unit = match.group(1), match.group(2).lower()
    if unit in _DECIMAL:
        prefix = _DECIMAL[unit]
        raise InvalidValueError(
            f"{name}={value!r:.80} is ambiguous: write {prefix}iB for powers of 1024, "
            "or the number of bytes"
        )
    if unit not in _UNITS:
        raise InvalidValueError(f"{name} must be {_ACCEPTED}, got {value!r:.80}")
    if number[:2].lower() == "0x":
        return int(number, 16) * _UNITS[unit]
    whole, _, decimals = number.partition(".")
    result, rest = divmod(int(whole + decimals) * _UNITS[unit], 10 ** len(decimals))
    if rest:
        raise InvalidValueError(f"{name}={value!r:.80} does not come to whole bytes")
    return result


def _whole(value: SupportsIndex, name: str) -> int:
    if isinstance(value, bool):
        raise InvalidTypeError(f"{name} must be {_ACCEPTED}, got {value!r}")
    try:
        result = operator.index(value)
    except TypeError as error:
        raise InvalidTypeError(f"{name} must be {_ACCEPTED}, got {value!r:.80}") from error
    if result < 0:
        raise InvalidValueError(f"{name} must not be negative, got {result}")
    return result


def format_size(n: int) -> str:
    """Write bytes with the largest unit that leaves no more than two decimals.

    Parameters
    ----------
    n : int
        Bytes.

    Returns
    -------
    str
        For example ``"256 MiB"``, ``"1.5 GiB"`` or ``"4097 B"``; `parse_size` gives `n` back.
    """
    for power in range(len(_PREFIXES), 0, -1):
        hundredths, rest = divmod(n * 100, 1024**power)
        if n >= 1024**power and rest == 0:
            whole, hundredths = divmod(hundredths, 100)
            decimals = f".{hundredths:02}".rstrip(".0")
            return f"{whole}{decimals} {_PREFIXES[power - 1]}iB"
    return f"{n} B"


def parse_time(value: object, name: str = "time") -> int:
    """Turn a time into nanoseconds.

    Parameters
    ----------
    value : str
        A decimal number, of which a fraction is fine where it comes to whole nanoseconds, with the
        unit ns, us, ms, s, min or h.
    name : str, default "time"
        The argument that messages name.

    Returns
    -------
    int
        Nanoseconds, not negative.

    Raises
    ------
    InvalidValueError
        For other text.
    InvalidTypeError
        For a number, which has no unit, or another type.

    Examples
    --------
    >>> parse_time("2.5 ms")
    2500000
    """
    if not isinstance(value, str):
        raise InvalidTypeError(f"{name} must be {_TIME_ACCEPTED}, got {value!r:.80}")
    match = _NUMBER.fullmatch(value)
    if match is None or match.group(2) not in _TIMES or match.group(1)[:2].lower() == "0x":
        raise InvalidValueError(f"{name} must be {_TIME_ACCEPTED}, got {value!r:.80}")
    whole, _, decimals = match.group(1).partition(".")
    result, rest = divmod(int(whole + decimals) * _TIMES[match.group(2)], 10 ** len(decimals))
    if rest:
        raise InvalidValueError(f"{name}={value!r:.80} does not come to whole nanoseconds")
    return result


def parse_frequency(value: object, name: str = "frequency") -> float:
    """Turn a frequency into MHz.

    Parameters
    ----------
    value : float or str
        MHz, or a decimal number with the unit Hz, kHz, MHz or GHz, whose case does not matter.
    name : str, default "frequency"
        The argument that messages name.

    Returns
    -------
    float
        MHz, not negative.

    Raises
    ------
    InvalidValueError
        For other text, a number that is negative or not finite.
    InvalidTypeError
        For another type.

    Examples
    --------
    >>> parse_frequency("2.6 GHz"), parse_frequency(800)
    (2600.0, 800.0)
    """
    if isinstance(value, str):
        match = _NUMBER.fullmatch(value)
        unit = "" if match is None else match.group(2).lower()
        if match is None or unit not in _FREQUENCIES or match.group(1)[:2].lower() == "0x":
            raise InvalidValueError(f"{name} must be {_FREQUENCY_ACCEPTED}, got {value!r:.80}")
        return float(match.group(1)) * _FREQUENCIES[unit]
    if isinstance(value, bool) or not hasattr(value, "__float__"):
        raise InvalidTypeError(f"{name} must be {_FREQUENCY_ACCEPTED}, got {value!r:.80}")
    number = float(value)
    if not 0 <= number < float("inf"):
        raise InvalidValueError(f"{name} must be finite and not negative, got {number}")
    return number


def format_time(ns: int) -> str:
    """Write a time in the largest of ns, us, ms and s that leaves a number of at least 1.

    Parameters
    ----------
    ns : int
        Nanoseconds.

    Returns
    -------
    str
        With up to three decimals, for example ``"2.5 ms"``.
    """
    for unit in ("s", "ms", "us"):
        if abs(ns) >= _TIMES[unit]:
            return f"{ns / _TIMES[unit]:,.3f}".rstrip("0").rstrip(".") + f" {unit}"
    return f"{ns} ns"
