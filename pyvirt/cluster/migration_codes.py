"""Numbers that stand for choices and outcomes of migrations, in kernels and in result arrays."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["Ended"]

# how pages become dirty
CONSTANT, LIMITED, RANDOM, TRACED = 0, 1, 2, 3
# what follows if the rounds did not end at the goal
STOP_AND_COPY, POSTCOPY, ABORT = 0, 1, 2
# what ended the rounds: kernels take plain integers
GOAL, ROUNDS, STALLED, DATA, AT_ONCE = 0, 1, 2, 3, 4


class Ended(IntEnum):
    """Why the rounds of a pre-copy ended."""

    GOAL = GOAL
    """What is left fits into the downtime goal."""
    ROUNDS = ROUNDS
    """As many rounds as are allowed were made."""
    STALLED = STALLED
    """A round dirtied nearly as much as it sent, and the guest cannot be slowed down further."""
    DATA = DATA
    """As much was sent as is allowed."""
    AT_ONCE = AT_ONCE
    """No round was asked for."""


REASONS = {
    Ended.GOAL: "what was left fits into the downtime goal",
    Ended.ROUNDS: "all rounds that are allowed were made",
    Ended.STALLED: "a round dirtied nearly as much as it sent",
    Ended.DATA: "as much was sent as is allowed",
    Ended.AT_ONCE: "no round was asked for",
}
