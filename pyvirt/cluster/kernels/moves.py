# Numba infers the types of kernels, and its decorators hide them.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"
"""Descents: the best move, or exchange, again and again; and what is known of each move."""

from __future__ import annotations

import math

from numba import njit

from pyvirt.cluster.kernels.balance import bring, price, spread_of, worth
from pyvirt.cluster.kernels.exchange import exchange
from pyvirt.cluster.kernels.index import best, step
from pyvirt.cluster.kernels.reach import may_run

__all__ = ["descend", "follow"]


@njit(cache=True, nogil=True)
def descend(b, rows, enough, goodness, moves, partner):
    """Move VMs while J exceeds `enough`, at most as often as `moves` (n, 3) has rows.

    A move must gain at least the part `goodness` of one host's share of J. Where none does, the
    best exchange of two VMs is made, of which both moves must gain that much on average. Writes
    VM, source and target; and to `partner` (n,) the other move of an exchange. Gives the number of
    moves.
    """
    spread = spread_of(b)
    count = 0
    while count < moves.shape[0] and spread > enough:
        least = goodness * float(spread) / b.host.size
        gained, vm, target = best(b, rows)
        if vm >= 0 and float(gained) >= least:
            moves[count, 0], moves[count, 1], moves[count, 2] = vm, b.where[vm], target
            step(b, rows, vm, target)
            count += 1
        else:
            gained, vm, mate = exchange(b, math.ceil(2 * least))
            if vm < 0 or count + 2 > moves.shape[0]:
                return count
            source, target = b.where[vm], b.where[mate]
            moves[count, 0], moves[count, 1], moves[count, 2] = vm, source, target
            moves[count + 1, 0], moves[count + 1, 1], moves[count + 1, 2] = mate, target, source
            partner[count], partner[count + 1] = count + 1, count
            step(b, rows, vm, target)
            step(b, rows, mate, source)
            count += 2
        spread -= gained
    return count


@njit(cache=True, nogil=True)
def follow(b, moves, spreads, figures):
    """Make moves in an order in which each is allowed when it is made.

    Moves (n, 3) are put into that order; `spreads` (n, 2) gets J before and after each, `figures`
    (n, 4) its seconds, CPU in kHz s, cost and benefit. Gives how many could be made.
    """
    count = moves.shape[0]
    for at in range(count):
        chosen = -1
        for i in range(at, count):
            if may_run(b, b.where, b.free, moves[i, 0], moves[i, 2]):
                chosen = i
                break
        if chosen < 0:
            return at
        vm, source, target = moves[chosen, 0], moves[chosen, 1], moves[chosen, 2]
        for i in range(chosen, at, -1):
            moves[i] = moves[i - 1]
        moves[at, 0], moves[at, 1], moves[at, 2] = vm, source, target
        spreads[at, 0] = spread_of(b)
        figures[at, 0], figures[at, 1], figures[at, 2] = price(b, vm, source, target)
        figures[at, 3] = worth(b, vm, source, target)
        bring(b, vm, target)
        spreads[at, 1] = spread_of(b)
    return count
