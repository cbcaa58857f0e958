"""Checked conversions of arguments to arrays and integers: the border of the compiled core."""

import operator

import numpy as np

from pyvirt.errors import InvalidTypeError, InvalidValueError


cdef object as_u64(object values, str name):
    """One-dimensional C-contiguous uint64 array of `values`, copied only if needed."""
    cdef object array
    if isinstance(values, np.ndarray):
        array = values
    else:
        try:
            array = np.asarray(values)
            if array.ndim and array.dtype.kind in "Of":
                # a list that mixes integers on both sides of 2**63, or one with non-integers
                array = np.array([operator.index(v) for v in values], dtype=np.uint64)
            elif array.size == 0:
                array = np.zeros(array.shape, dtype=np.uint64)
        except (TypeError, ValueError) as error:
            raise InvalidTypeError(
                f"{name} must be an array of integer addresses, not {values!r:.80}"
            ) from error
        except OverflowError as error:
            raise InvalidValueError(
                f"{name} must hold integers in [0, 2**64), got {values!r:.80}"
            ) from error
    if array.ndim != 1:
        raise InvalidTypeError(
            f"{name} must be a one-dimensional array of integers, not {values!r:.80}")
    if array.dtype == np.uint64 and array.dtype.isnative:
        return np.require(array, requirements="CA")
    if array.dtype.kind not in "iu":
        raise InvalidTypeError(f"{name} must have an integer dtype, got {array.dtype}")
    if array.dtype.kind == "i" and array.size and array.min() < 0:
        raise InvalidValueError(f"{name} must not be negative, got {array.min()}")
    return np.ascontiguousarray(array, dtype=np.uint64)


cdef object as_output(object array, object dtype, tuple shape, str name):
    """`array` itself if it can receive results of `dtype` and `shape`; a new one for None."""
    if array is None:
        return np.empty(shape, dtype=dtype)
    if not isinstance(array, np.ndarray) or array.dtype != dtype:
        raise InvalidTypeError(
            f"{name} must be an ndarray of dtype {np.dtype(dtype)}, "
            f"got {getattr(array, 'dtype', type(array).__name__)}"
        )
    if array.shape != shape:
        raise InvalidTypeError(f"{name} must have shape {shape}, got {array.shape}")
    if not (array.flags.c_contiguous and array.flags.aligned and array.flags.writeable):
        raise InvalidTypeError(f"{name} must be C-contiguous, aligned and writable")
    return array


cdef object as_int(object value, str name, object low, object high):
    """`value` as an integer within [low, high]."""
    try:
        value = operator.index(value)
    except TypeError as error:
        raise InvalidTypeError(f"{name} must be an integer, not {value!r:.80}") from error
    if not low <= value <= high:
        raise InvalidValueError(f"{name} must be in [{low:#x}, {high:#x}], got {value:#x}")
    return value


def addresses(values, name):
    """`values` as a one-dimensional uint64 array, or an error that calls them `name`."""
    return as_u64(values, name)
