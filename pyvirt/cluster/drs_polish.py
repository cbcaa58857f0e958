"""Few moves chosen better: some are taken back, and others looked for in their place."""

from __future__ import annotations

from itertools import combinations_with_replacement
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from pyvirt.cluster.balance import State
    from pyvirt.cluster.kernels.balance import Balance
    from pyvirt.cluster.kernels.index import Rows

__all__ = ["polish"]

ROUNDS = 8


def polish(state: State, moves: npt.NDArray[np.int64]) -> None:
    """Take back one move, or two, and look for better ones, until no such change lowers J.

    Two that are looked for one after the other, with two taken back, also find pairs of which
    neither was the best on its own.

    Parameters
    ----------
    state : State
        In which the moves have been made; it follows.
    moves : ndarray of int64, shape (n, 3)
        VM, source, target, each VM once; is changed.
    """
    from pyvirt.cluster.kernels.balance import spread_of
    from pyvirt.cluster.kernels.index import estimate, step

    b, rows = state.balance, state.rows()
    nowhere = b.must.shape[0] - 1
    spread = int(spread_of(b))
    for _ in range(ROUNDS):
        better = False
        for pair in combinations_with_replacement(range(len(moves)), 2):
            chosen = sorted(set(pair))
            # As it comes, and with one of those taken back staying where it is.
            for banned in (-1, *moves[chosen, 0].tolist()):
                klass = b.klass[banned]
                if banned >= 0:
                    b.klass[banned] = nowhere
                old = moves[chosen].copy()
                for vm, source, _target in old:
                    step(b, rows, vm, source)
                made = _again(b, rows, moves, chosen)
                now = int(spread_of(b))
                if len(made) == len(chosen) and now < spread:
                    moves[chosen] = made
                    spread, better = now, True
                else:
                    for vm, source, _target in reversed(made):
                        step(b, rows, vm, source)
                    for vm, _source, target in old:
                        step(b, rows, vm, target)
                if banned >= 0:
                    b.klass[banned] = klass
                    estimate(b, rows, b.where[banned])
        if _regroup(b, rows, moves, spread):
            spread, better = int(spread_of(b)), True
        if not better:
            return


def _regroup(b: Balance, rows: Rows, moves: npt.NDArray[np.int64], spread: int) -> bool:
    """Take all moves back and send the same VMs anew, large ones first; keep what is better."""
    from pyvirt.cluster.kernels.balance import home, spread_of
    from pyvirt.cluster.kernels.index import step

    old = moves.copy()
    for vm, source, _target in old:
        step(b, rows, vm, source)
    parts = b.amount[:, old[:, 0]] * (b.weight / np.maximum(b.mean_capacity, 1.0))[:, None]
    made: list[tuple[int, int, int]] = []
    for at in np.argsort(-parts.sum(axis=0), kind="stable"):
        vm, source = int(old[at, 0]), int(old[at, 1])
        target = home(b, vm)
        if target < 0:
            break
        made.append((vm, source, target))
        step(b, rows, vm, target)
    if len(made) == len(old) and int(spread_of(b)) < spread:
        moves[:] = made
        return True
    for vm, source, _target in reversed(made):
        step(b, rows, vm, source)
    for vm, _source, target in old:
        step(b, rows, vm, target)
    return False


def _again(
    b: Balance, rows: Rows, moves: npt.NDArray[np.int64], chosen: list[int]
) -> list[tuple[int, int, int]]:
    """Make the best moves in place of those taken back, one after the other."""
    from pyvirt.cluster.kernels.index import best, step

    # A VM that has moved is not to move twice.
    others = set(np.delete(moves[:, 0], chosen).tolist())
    made: list[tuple[int, int, int]] = []
    for _ in chosen:
        _gain, vm, target = best(b, rows)
        if vm < 0 or vm in others:
            break
        made.append((vm, int(b.where[vm]), target))
        others.add(vm)
        step(b, rows, vm, target)
    return made
