"""Measure ten days of PlanetLab's CPU traces; write what the generator of demand needs of them.

    PYVIRT_DATA=... python make_planetlab_stats.py > pyvirt/traces/demand_data/planetlab.toml

A machine's day is described by its level (mean), its variation (standard deviation over the mean)
and the shape of what it deviates from the level, in units of the standard deviation. Shapes are
pooled over all days, for machines of like levels and variations.
"""

import math
import os
import sys
from pathlib import Path

import numpy as np

DAYS = (
    *("20110303", "20110306", "20110309", "20110322", "20110325"),
    *("20110403", "20110409", "20110411", "20110412", "20110420"),
)
LEVELS = (2, 4, 8, 16, 32, 101)  # per cent: upper bounds of the classes of machines
Z = np.linspace(-3.5, 3.5, 29)  # where shapes are given, in standard normal deviates
LAGS = (1, 6, 12, 36)
PLACES = [*np.arange(0, 98, 2.5), 98, 98.5, 99, 99.5, 99.75, 100]  # quantiles of levels, per cent
THIRDS = 3  # of the machines of a class, by their variation


def normal(z: float) -> float:
    return (1 + math.erf(z / math.sqrt(2))) / 2


def autocorrelation(util: np.ndarray, lag: int) -> float:
    """Mean over machines of that within a machine's day."""
    off = util - util.mean(axis=1, keepdims=True)
    off = off[off.any(axis=1)]
    return float(((off[:, lag:] * off[:, :-lag]).sum(axis=1) / (off**2).sum(axis=1)).mean())


def two_zeros(util: np.ndarray) -> int:
    """Machines with two consecutive samples of zero."""
    return int(((util[:, 1:] == 0) & (util[:, :-1] == 0)).any(axis=1).sum())


def facts(util: np.ndarray) -> dict:
    """What a test compares."""
    util = util.astype(np.float64)
    return {
        "machines": len(util),
        "mean": round(float(util.mean()), 3),
        "deviation": round(float(util.std()), 3),
        "quartiles": [float(x) for x in np.percentile(util, (25, 50, 75))],
        "zeros": round(float((util == 0).mean()), 4),
        "two_zeros": two_zeros(util),
        "autocorrelation": [round(autocorrelation(util, lag), 4) for lag in LAGS],
        "own_deviation": round(float(util.std(axis=1).mean()), 3),
    }


def shape_of(deviations: np.ndarray) -> list[float]:
    places = [100 * normal(z) for z in Z]
    return [round(float(x), 3) for x in np.percentile(deviations, places)]


def main() -> None:
    folder = Path(os.environ["PYVIRT_DATA"]) / "planetlab"
    days = {}
    for day in DAYS:
        with np.load(folder / f"{day}.npz") as archive:
            days[day] = archive["util"].astype(np.float64)
    level = np.concatenate([util.mean(axis=1) for util in days.values()])
    deviation = np.concatenate([util.std(axis=1) for util in days.values()])
    every = np.concatenate(list(days.values()))
    variation = deviation / level
    kind = np.searchsorted(LEVELS, level, side="right")
    mean_variation = np.array([variation[kind == i].mean() for i in range(len(LEVELS))])
    out = [
        "# Measured by tests/data/make_planetlab_stats.py from ten days of PlanetLab's CPU traces",
        "# (CoMon project: K. Park, V. Pai, ACM SIGOPS Operating Systems Review 40(1), 2006;",
        "# selected by A. Beloglazov, R. Buyya, Concurrency and Computation: Practice and",
        "# Experience 24(13), 2012; repository Cloudslab/cloudsim, commit 476ceef).",
        "# Per cent; lags in 5 minutes.",
        "# Statistics only: no sample of the traces is in here.",
        "",
        f"lags = {list(LAGS)}",
        f"deviates = {[float(z) for z in Z]}",
        f"places = {[float(x) for x in PLACES]}",
        "",
    ]
    for day, util in days.items():
        out.append("[[day]]")
        out.append(f'name = "{day}"')
        out += [f"{key} = {value}" for key, value in facts(util).items()]
        own = util.mean(axis=1)
        levels = [round(float(x), 3) for x in np.percentile(own, PLACES)]
        usual = mean_variation[np.searchsorted(LEVELS, own, side="right")] * own
        out.append(f"variation = {util.std(axis=1).sum() / usual.sum():.3f}")
        out.append(f"levels = {levels}")
        out.append("")
    low = 0.0
    for high in LEVELS:
        which = np.flatnonzero((level >= low) & (level < high))
        own = variation[which]
        out.append("[[class]]")
        out.append(f"below = {high}")
        quantiles = np.percentile(own, np.linspace(0, 100, 21))
        out.append(f"variations = {[round(float(x), 3) for x in quantiles]}")
        edges = np.percentile(own, np.linspace(0, 100, THIRDS + 1))
        out.append(f"thirds = {[round(float(x), 3) for x in edges[1:-1]]}")
        out.append("shapes = [")
        for i in range(THIRDS):
            some = which[(own >= edges[i]) & (own <= edges[i + 1]) & (deviation[which] > 0)]
            off = (every[some] - level[some, None]) / deviation[some, None]
            out.append(f"    {shape_of(off)},")
        out.append("]")
        out.append("")
        low = high
    sys.stdout.write("\n".join(out).rstrip() + "\n")


if __name__ == "__main__":
    main()
