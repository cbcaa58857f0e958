"""Whole numbers that callers give."""

from __future__ import annotations

import operator

from pyvirt.errors import InvalidTypeError, InvalidValueError

__all__ = ["whole"]


def whole(value: object, name: str, least: int) -> int:
    """Check an integer; the messages call it `name`."""
    if isinstance(value, bool):
        raise InvalidTypeError(f"{name} must be an integer, got {value!r}")
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise InvalidTypeError(f"{name} must be an integer, got {value!r:.80}") from None
    if number < least:
        raise InvalidValueError(f"{name} must be at least {least:,}, got {number:,}")
    return number
