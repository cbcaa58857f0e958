"""A10: what faster page walks make of whole programs, against published figures.

The figures are those of the SagePTE paper as its artifact states them:
amirmnoohi/SagePTE-AE on GitHub, commit 317afce, Simulator/scripts/parse_walk_stats.py, PAPER.
All are for pages of 4K under nested paging.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pyvirt.mmu.costs import project
from pyvirt.validation.registry import Context, Outcome, experiment
from pyvirt.validation.tally import Tally

__all__ = ["projection"]

TOLERANCE = 1e-4  # the figures have four decimals, and so have the ones that they came from


@dataclass(frozen=True, slots=True)
class Workload:
    """The published figures of one program.

    Attributes
    ----------
    name : str
        The program.
    walk_fraction : float
        Part of its time that real hardware spent in walks.
    agile_walk, agile_program : float
        Speed-up of its walks under agile paging, and of the whole program.
    final : tuple of float
        Per cent of a walk's cycles in the last host walk, by level: what SagePTE leaves out.
    sage_walk : float
        Speed-up of its walks under SagePTE.
    """

    name: str
    walk_fraction: float
    agile_walk: float
    agile_program: float
    final: tuple[float, ...]
    sage_walk: float


WORKLOADS = (
    Workload("btree", 0.4447275661443071, 1.2337, 1.092, (0.9003, 1.2317, 8.1699, 34.4702), 1.8107),
    Workload(
        "canneal", 0.7815695864828817, 1.1616, 1.122, (0.938, 1.3019, 6.0492, 38.7476), 1.8881
    ),
    Workload(
        "graph500", 0.20428433372704805, 1.585, 1.0815, (0.5679, 0.7639, 6.0993, 20.5378), 1.3883
    ),
    Workload("gups", 0.9628, 1.2628, 1.2505, (0.9145, 1.1898, 7.7618, 34.3257), 1.7919),
    Workload(
        "memcached", 0.13883162668596255, 1.3257, 1.0353, (0.8729, 1.1526, 9.5648, 30.9449), 1.7402
    ),
    Workload(
        "redis", 0.47845267237862116, 1.3004, 1.1243, (1.0142, 1.4075, 7.4093, 32.9118), 1.7305
    ),
    Workload(
        "xsbench", 0.6144562334217507, 1.2184, 1.1238, (0.8936, 1.2019, 6.8299, 35.0806), 1.7859
    ),
)
#: Its published shares and its published speed-up contradict each other.
CONTRADICTORY = "redis"


@experiment("A10", "projection of walk speed-ups to whole programs")
def projection(context: Context) -> Outcome:
    """Project the walks' speed-ups, and derive that of SagePTE from what it leaves out."""
    tally = Tally()

    published = np.array([w.agile_program for w in WORKLOADS])
    computed = project([w.walk_fraction for w in WORKLOADS], [w.agile_walk for w in WORKLOADS])
    close = np.abs(computed - published) <= TOLERANCE
    tally.check(
        close,
        lambda i: f"{WORKLOADS[i].name}: {computed[i]:.6f} projected, {published[i]} published",
    )

    consistent = [w for w in WORKLOADS if w.name != CONTRADICTORY]
    # A walk without its last part takes what is left of it: the same formula, with an infinite
    # speed-up of that part.
    walks = project([sum(w.final) / 100 for w in consistent], np.inf)
    stated = np.array([w.sage_walk for w in consistent])
    close_walks = np.abs(walks - stated) <= TOLERANCE
    tally.check(
        close_walks,
        lambda i: f"{consistent[i].name}: walks {walks[i]:.6f} times faster, {stated[i]} published",
    )

    (left_out,) = (w for w in WORKLOADS if w.name == CONTRADICTORY)
    implied = float(project(sum(left_out.final) / 100, np.inf))
    return tally.outcome(
        "A10",
        sentences=(
            _sentence(len(WORKLOADS), len(consistent)),
            _sentence(int(close.sum()), int(close_walks.sum())),
        ),
        note=(
            f"{CONTRADICTORY}'s walks under SagePTE left out: its published shares make them "
            f"{implied:.4f} times faster, not the {left_out.sage_walk} published with them"
        ),
    )


def _sentence(programs: int, walks: int) -> str:
    return (
        f"agile end-to-end within {TOLERANCE:g}: {programs}; "
        f"SagePTE walks within {TOLERANCE:g}: {walks}"
    )
