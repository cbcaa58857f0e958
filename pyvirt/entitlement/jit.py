# Numba's decorators change the types of what they decorate.
# mypy: disable-error-code="attr-defined, call-arg, no-untyped-call"
"""The solver of entitlements inside Numba's kernels, called by address.

Importing this module imports Numba. An address is an argument of each function, and should be one
of the kernel that calls it: as a constant of the kernel it would keep Numba from caching that
(``cache=True``). The functions allocate nothing and need no GIL, so ``nogil=True`` and ``prange``
work. What they are given is checked for its length alone; values must be as the header
``pyvirt/entitlement.h`` says, as those of `pyvirt.entitlement.PoolTrees` are.

The most by which a client falls short of its demand, over several amounts:

>>> import numpy as np
>>> from numba import njit
>>> from pyvirt.entitlement import addresses
>>> from pyvirt.entitlement.jit import SCRATCH, divide
>>> @njit
... def shortest(solver, shares, demands, amounts):
...     n = len(shares)
...     floors, given, scratch = np.zeros(n), np.zeros(n), np.zeros(SCRATCH * n)
...     worst = 0.0
...     for amount in amounts:
...         divide(solver, shares, floors, demands, amount, given, scratch)
...         worst = max(worst, (demands - given).max())
...     return worst
>>> shares, demands = np.array([2.0, 1.0]), np.array([300.0, 300.0])
>>> shortest(addresses()["divide"], shares, demands, np.array([600.0, 450.0, 300.0]))
200.0
"""

from __future__ import annotations

from typing import Any, Final

from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from pyvirt._core.solvers import SCRATCH_BYTES

__all__ = ["SCRATCH", "divide", "divide_trees", "divide_whole"]

# Doubles of scratch for each client, or each node of trees.
SCRATCH: Final = SCRATCH_BYTES // 8

_POINTER = cgutils.ir.IntType(8).as_pointer()
_I32, _I64, _DOUBLE = cgutils.ir.IntType(32), cgutils.ir.IntType(64), cgutils.ir.DoubleType()


def _are_vectors(arrays: tuple[Any, ...], dtype: Any, *, written: bool = False) -> bool:
    """Whether all are contiguous arrays of one dimension and of that type."""
    return all(
        isinstance(array, types.Array)
        and array.ndim == 1
        and array.layout == "C"
        and array.dtype == dtype
        and (array.mutable or not written)
        for array in arrays
    )


def _data(context: Any, builder: Any, kind: Any, array: Any) -> Any:
    return builder.bitcast(context.make_array(kind)(context, builder, array).data, _POINTER)


def _invoke(builder: Any, address: Any, arguments: list[Any]) -> Any:
    kind = cgutils.ir.FunctionType(_I32, [argument.type for argument in arguments])
    return builder.call(builder.inttoptr(address, kind.as_pointer()), arguments)


@intrinsic
def _divide(
    typing: Any, address: Any, shares: Any, floors: Any, caps: Any, amount: Any, out: Any,
    scratch: Any,
) -> Any:  # fmt: skip
    if not (
        _are_vectors((shares, floors, caps), types.float64)
        and _are_vectors((out, scratch), types.float64, written=True)
    ):
        return None
    result = types.Tuple((types.int32, types.float64))

    def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        at = [
            _data(context, builder, signature.args[i], given[i]) if i not in (0, 4) else given[i]
            for i in range(7)
        ]
        n = context.make_array(shares)(context, builder, given[1]).nitems
        level = cgutils.alloca_once(builder, _DOUBLE)
        status = _invoke(
            builder,
            given[0],
            [*at[1:4], n, given[4], at[5], builder.bitcast(level, _POINTER), at[6]],
        )
        return context.make_tuple(builder, result, [status, builder.load(level)])

    arguments = (types.uint64, shares, floors, caps, types.float64, out, scratch)
    return result(*arguments), generate


@intrinsic
def _divide_whole(
    typing: Any, address: Any, shares: Any, floors: Any, caps: Any, amount: Any, out: Any,
    scratch: Any,
) -> Any:  # fmt: skip
    if not (
        _are_vectors((shares, floors, caps), types.int64)
        and _are_vectors((out,), types.int64, written=True)
        and _are_vectors((scratch,), types.float64, written=True)
    ):
        return None

    def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        at = [
            _data(context, builder, signature.args[i], given[i]) if i not in (0, 4) else given[i]
            for i in range(7)
        ]
        n = context.make_array(shares)(context, builder, given[1]).nitems
        return _invoke(builder, given[0], [*at[1:4], n, *at[4:]])

    arguments = (types.uint64, shares, floors, caps, types.int64, out, scratch)
    return types.int32(*arguments), generate


@intrinsic
def _divide_trees(
    typing: Any, address: Any, first: Any, shares: Any, reservation: Any, limit: Any,
    capacity: Any, scale: Any, floor: Any, cap: Any, given: Any, level: Any, scratch: Any,
) -> Any:  # fmt: skip
    inputs, outputs = (shares, reservation, limit, capacity), (floor, cap, given, level, scratch)
    if not (
        _are_vectors((first,), types.int64)
        and _are_vectors(inputs, types.float64)
        and _are_vectors(outputs, types.float64, written=True)
    ):
        return None
    result = types.Tuple((types.int32, types.int64))

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        at = [
            _data(context, builder, signature.args[i], values[i]) if i not in (0, 6) else values[i]
            for i in range(12)
        ]
        n = context.make_array(shares)(context, builder, values[2]).nitems
        where = cgutils.alloca_once(builder, _I64)
        status = _invoke(
            builder,
            values[0],
            [n, *at[1:6], values[6], *at[7:], builder.bitcast(where, _POINTER)],
        )
        return context.make_tuple(builder, result, [status, builder.load(where)])

    arguments = (types.uint64, first, *inputs, types.int32, *outputs)
    return result(*arguments), generate


def _lengths(n: int, floors: int, caps: int, out: int, scratch: int) -> None:
    if floors != n or caps != n or out != n or scratch < SCRATCH * n:
        raise ValueError(
            "shares, floors, caps and out must be equally long, and scratch SCRATCH times as long"
        )


_check_lengths: Any = njit(_lengths)


@njit
def divide(
    address: int, shares: Any, floors: Any, caps: Any, amount: float, out: Any, scratch: Any
) -> Any:
    """Divide an amount by shares, with a floor and a cap for each client.

    Parameters
    ----------
    address : int
        ``pyvirt.entitlement.addresses()["divide"]``.
    shares, floors, caps : contiguous array of float64, shape (n,)
        As `pyvirt._core.waterfill.divide` accepts them. Caps may be infinite.
    amount : float
        What is divided.
    out : contiguous array of float64, shape (n,)
        Receives what each client gets; none of the others.
    scratch : contiguous array of float64, shape (SCRATCH * n,) or longer
        Is written.

    Returns
    -------
    status : int
        0; 1 if the floors exceed the amount and were all cut by one factor; 2 if the amount and a
        cap are infinite, and nothing was written.
    level : float
        What a share is worth to clients between floor and cap; says nothing with status 2.

    Raises
    ------
    ValueError
        The arrays are not equally long, or `scratch` is too short.
    """
    _check_lengths(len(shares), len(floors), len(caps), len(out), len(scratch))
    return _divide(address, shares, floors, caps, amount, out, scratch)


@njit
def divide_whole(
    address: int, shares: Any, floors: Any, caps: Any, amount: int, out: Any, scratch: Any
) -> Any:
    """Divide an amount in whole units, with exact sums.

    Parameters
    ----------
    address : int
        ``pyvirt.entitlement.addresses()["divide_whole"]``.
    shares, floors, caps : contiguous array of int64, shape (n,)
        As `pyvirt._core.waterwhole.divide_whole` accepts them; a cap of 2**63 - 1 is none.
    amount : int
        What is divided.
    out : contiguous array of int64, shape (n,)
        Receives what each client gets; none of the others.
    scratch : contiguous array of float64, shape (SCRATCH * n,) or longer
        Is written.

    Returns
    -------
    int
        0; 1 if the floors exceed the amount and were all cut by one factor.

    Raises
    ------
    ValueError
        The arrays are not equally long, or `scratch` is too short.
    """
    _check_lengths(len(shares), len(floors), len(caps), len(out), len(scratch))
    return _divide_whole(address, shares, floors, caps, amount, out, scratch)


@njit
def divide_trees(
    address: int,
    first: Any,
    shares: Any,
    reservation: Any,
    limit: Any,
    capacity: Any,
    scale: bool,
    floor: Any,
    cap: Any,
    given: Any,
    level: Any,
    scratch: Any,
) -> Any:
    """Divide capacities over trees of pools, as `pyvirt.entitlement.PoolTrees` holds them.

    Parameters
    ----------
    address : int
        ``pyvirt.entitlement.addresses()["divide_trees"]``.
    first : contiguous array of int64, shape (n + 1,)
    shares, reservation, limit : contiguous array of float64, shape (n,)
        The attributes of that name of a `PoolTrees`.
    capacity : contiguous array of float64, shape (roots,)
        What each tree divides.
    scale : bool
        Whether floors that exceed what a pool has are cut in proportion; else the division stops
        at the first such pool.
    floor, cap : contiguous array of float64, shape (n,)
        Of clients, what they keep of their reservation at least, and their demand within their
        limit, floor <= cap; of pools they are written.
    given, level : contiguous array of float64, shape (n,)
        Receive the entitlements, and what a share is worth in each pool; NaN for clients.
    scratch : contiguous array of float64, shape (SCRATCH * n,) or longer
        Is written.

    Returns
    -------
    status : int
        0; 1 if floors exceed what a pool has.
    where : int
        The node where the division stopped; -1 if it did not.

    Raises
    ------
    ValueError
        An array is too short.
    """
    n = len(shares)
    if (
        len(first) != n + 1
        or len(reservation) != n
        or len(limit) != n
        or len(floor) != n
        or len(cap) != n
        or len(given) != n
        or len(level) != n
        or len(capacity) < first[0]
        or len(scratch) < SCRATCH * n
    ):
        raise ValueError(
            "first must have one element more than there are nodes, capacity one for each root, "
            "scratch SCRATCH for each node, and all others one for each node"
        )
    return _divide_trees(
        address, first, shares, reservation, limit, capacity, scale, floor, cap, given, level,
        scratch,
    )  # fmt: skip
