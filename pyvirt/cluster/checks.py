"""Checks of numbers and arrays that callers give, with messages that name them."""

from __future__ import annotations

import math
import operator
from typing import Any

import numpy as np
import numpy.typing as npt

from pyvirt.errors import InvalidTypeError, InvalidValueError

__all__ = ["column", "number", "rows", "whole"]


def whole(value: Any, name: str, least: int = 0, most: int | None = None) -> int:
    """Check an integer; the messages call it `name`."""
    if isinstance(value, (bool, np.bool_)):
        raise InvalidTypeError(f"{name} must be an integer, got {value!r}")
    try:
        result = operator.index(value)
    except TypeError:
        raise InvalidTypeError(f"{name} must be an integer, got {value!r:.80}") from None
    if result < least or (most is not None and result > most):
        upper = "" if most is None else f" and at most {most:,}"
        raise InvalidValueError(f"{name} must be at least {least:,}{upper}, got {result:,}")
    return result


def number(
    value: Any,
    name: str,
    least: float = 0.0,
    most: float = math.inf,
    *,
    above: bool = False,
    infinite: bool = False,
) -> float:
    """Check a number in [least, most], or in (least, most] if it must be `above`."""
    try:
        result = float(value)
    except (TypeError, ValueError):
        raise InvalidTypeError(f"{name} must be a number, got {value!r:.80}") from None
    low = result > least if above else result >= least
    if not low or result > most or (math.isinf(result) and not infinite):
        bounds = f"{'above' if above else 'at least'} {least:g}"
        bounds += "" if math.isinf(most) else f" and at most {most:g}"
        raise InvalidValueError(f"{name} must be {bounds}, got {value!r}")
    return result


def rows(
    value: Any, name: str, length: int, default: float | None = None, *, above: bool = False
) -> npt.NDArray[np.float64]:
    """Turn a number or a column into floats, one for each row, finite and not negative."""
    if value is None:
        value = default
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise InvalidTypeError(f"{name} must be numbers, got {value!r:.80}") from None
    if array.shape not in ((), (length,)):
        raise InvalidTypeError(f"{name} must have shape ({length},), not {array.shape}")
    # a copy: kernels are compiled for arrays that may be written
    array = np.array(np.broadcast_to(array, (length,)))
    low = array.min(initial=1.0)
    # nan fails both comparisons
    if not ((low > 0 if above else low >= 0) and array.max(initial=0.0) < np.inf):
        good = np.isfinite(array) & ((array > 0) if above else (array >= 0))
        row = int(np.argmin(good))
        bound = "above 0" if above else "at least 0"
        raise InvalidValueError(f"{name}, row {row}: must be {bound}, got {array[row]}")
    return array


def column(value: Any, name: str, length: int, least: int, most: int) -> npt.NDArray[np.int64]:
    """Turn an integer or a column into int64, one for each row, within bounds."""
    try:
        raw = np.asarray(value)
        if raw.dtype.kind not in "iu":
            whole_numbers = np.asarray(value, dtype=np.float64)
            bad = ~(np.isfinite(whole_numbers) & (whole_numbers == np.floor(whole_numbers)))
            if bad.any():
                row = int(np.argmax(bad))
                raise InvalidValueError(
                    f"{name}, row {row}: must be a whole number, got {whole_numbers.flat[row]}"
                )
    except (TypeError, ValueError) as error:
        if isinstance(error, InvalidValueError):
            raise
        raise InvalidTypeError(f"{name} must be integers, got {value!r:.80}") from None
    if raw.shape not in ((), (length,)):
        raise InvalidTypeError(f"{name} must have shape ({length},), not {raw.shape}")
    bad = (raw < least) | (raw > most)
    if bad.any():
        row = int(np.argmax(bad))
        value = np.broadcast_to(raw, (length,))[row]
        raise InvalidValueError(f"{name}, row {row}: must be in [{least:,}, {most:,}], got {value}")
    return np.array(np.broadcast_to(raw, (length,)), dtype=np.int64)
