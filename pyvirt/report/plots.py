"""Plots of results. Matplotlib is loaded when one is drawn, and draws without a screen."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pyvirt.errors import InvalidTypeError, InvalidValueError, MissingDependencyError
from pyvirt.mmu.compare import Comparison
from pyvirt.mmu.crossover import CrossoverMap
from pyvirt.mmu.prices import Cycles

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "FORMATS",
    "comparison_bars",
    "crossover_map",
    "cycle_bars",
    "miss_ratio_curves",
    "save",
]

#: Endings of files that `save` writes.
FORMATS = ("png", "svg", "pdf")


def cycle_bars(results: Mapping[str, Cycles], *, accesses: int | None = None) -> Figure:
    """Draw where cycles go: a bar for each result, cut into groups of classes.

    Parameters
    ----------
    results : mapping of str to Cycles
        What `pyvirt.CostModel.cycles` gave, by the name that its bar gets.
    accesses : int, optional
        Divide by them: cycles of one access.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    MissingDependencyError
        If Matplotlib is not installed.
    """
    if not results:
        raise InvalidValueError("results is empty: there is nothing to draw")
    for name, cycles in results.items():
        if not isinstance(cycles, Cycles):
            raise InvalidTypeError(f"results[{name!r}] must be a Cycles, got {cycles!r:.80}")
    if accesses is not None and accesses < 1:
        raise InvalidValueError(f"accesses must be at least 1, got {accesses}")
    figure = _figure(width=max(4.0, 1.6 + 0.9 * len(results)))
    axes = figure.add_subplot()
    names = list(results)
    groups = [cycles.groups for cycles in results.values()]
    bases = [0.0] * len(names)
    for number, group in enumerate(dict.fromkeys(name for each in groups for name in each)):
        heights = [each.get(group, 0.0) / (accesses or 1) for each in groups]
        if any(heights):
            axes.bar(names, heights, 0.6, bottom=bases, label=group, color=_colour(number))
            bases = [base + height for base, height in zip(bases, heights, strict=True)]
    axes.set_ylabel("cycles" if accesses is None else "cycles of an access")
    if any(bases):
        axes.legend(reverse=True, loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    return figure


def comparison_bars(comparison: Comparison) -> Figure:
    """Draw where the cycles of an access go in each mode.

    Parameters
    ----------
    comparison : Comparison
        What `pyvirt.compare` gave.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    MissingDependencyError
        If Matplotlib is not installed.
    """
    if not isinstance(comparison, Comparison):
        raise InvalidTypeError(f"comparison must be a Comparison, got {comparison!r:.80}")
    return cycle_bars(
        {mode: run.cycles for mode, run in comparison.runs.items()},
        accesses=comparison.accesses or None,
    )


def crossover_map(found: CrossoverMap, mode: str = "shadow", other: str = "nested") -> Figure:
    """Draw which of two modes is cheaper, and by how much, over two rates.

    Parameters
    ----------
    found : CrossoverMap
        What `pyvirt.mmu.crossover.crossover` gave.
    mode, other : str
        Two of its modes. A cell is blue where `mode` is cheaper, red where `other` is; the line
        is the boundary.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    MissingDependencyError
        If Matplotlib is not installed.
    """
    if not isinstance(found, CrossoverMap):
        raise InvalidTypeError(f"found must be a CrossoverMap, got {found!r:.80}")
    ratio = found.ratio(mode, other)
    figure = _figure(width=2.4 + 0.55 * ratio.shape[1])
    axes = figure.add_subplot()
    logarithm = np.log2(ratio)
    reach = max(float(np.abs(logarithm).max()), 0.1)
    image = axes.imshow(
        logarithm, cmap="coolwarm", vmin=-reach, vmax=reach, origin="lower", aspect="auto"
    )
    for (row, column), value in np.ndenumerate(ratio):
        # how many times dearer the dearer one is
        axes.text(column, row, f"{max(value, 1 / value):.2g}", ha="center", va="center", fontsize=7)
    if min(ratio.shape) > 1 and ratio.min() < 1 < ratio.max():
        axes.contour(logarithm, levels=[0.0], colors="black", linewidths=1.5)
    axes.set_xticks(range(ratio.shape[1]), [f"{1000 * rate:g}" for rate in found.updates])
    # what was asked for decides the row; what missed is what is measured
    measured = [f"{1000 * rate:.3g}" for rate in found.miss_ratio.mean(axis=1)]
    axes.set_yticks(range(ratio.shape[0]), measured)
    axes.set_xlabel("edits of tables in 1000 accesses")
    axes.set_ylabel("TLB misses in 1000 accesses, natively")
    bar = figure.colorbar(image, ax=axes)
    bar.set_label(f"log2 of cycles, {mode} over {other}")
    return figure


def miss_ratio_curves(curves: Mapping[str, npt.NDArray[Any]]) -> Figure:
    """Draw the share of misses over the size of TLBs, on logarithmic axes.

    Parameters
    ----------
    curves : mapping of str to ndarray
        Arrays with ``entries`` and ``miss_ratio``, as `pyvirt.mmu.sweep.Sweep.miss_ratio_curve`
        gives, by the name in the legend.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    MissingDependencyError
        If Matplotlib is not installed.
    """
    if not curves:
        raise InvalidValueError("curves is empty: there is nothing to draw")
    for name, curve in curves.items():
        columns = getattr(getattr(curve, "dtype", None), "names", None) or ()
        if not {"entries", "miss_ratio"} <= set(columns):
            raise InvalidTypeError(
                f"curves[{name!r}] must have entries and miss_ratio, got {curve!r:.80}"
            )
    figure = _figure(width=6.0)
    axes = figure.add_subplot()
    for name, curve in curves.items():
        # a size serves until the next one: the curve has no values in between
        axes.step(curve["entries"], curve["miss_ratio"], where="post", label=name)
    axes.set_xscale("log", base=2)
    axes.set_xlabel("entries")
    axes.set_ylabel("miss ratio")
    if any(curve["miss_ratio"].any() for curve in curves.values()):
        axes.set_yscale("log")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    return figure


def save(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a plot to a file.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
        The plot.
    path : path
        Its name ends in one of `FORMATS`. The same figure gives the same bytes.

    Raises
    ------
    InvalidValueError
        For another ending.
    """
    ending = check_name(path)
    # without the date that these formats carry
    dated = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
    require()
    from matplotlib import rc_context

    with rc_context({"svg.hashsalt": "pyvirt"}):
        figure.savefig(path, format=ending, dpi=150, metadata=dated.get(ending))


def check_name(path: str | os.PathLike[str]) -> str:
    """Give the ending of a name, if it is one of `FORMATS`.

    Raises
    ------
    InvalidValueError
        For another ending.
    """
    ending = Path(path).suffix[1:].lower()
    if ending not in FORMATS:
        raise InvalidValueError(
            f"{os.fspath(path)!r} must end in one of {', '.join('.' + name for name in FORMATS)}"
        )
    return ending


def require() -> None:
    """See whether Matplotlib is there.

    Raises
    ------
    MissingDependencyError
        If it is not installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            "plots need Matplotlib; install the extra: pip install 'pyvirt[plot]'"
        ) from error


def _colour(number: int) -> Any:
    """Give the colour of a group: ten, then the light form of each."""
    if number < 10:
        return f"C{number}"
    from matplotlib import colormaps

    return colormaps["tab20"](2 * (number % 10) + 1)


def _figure(width: float) -> Figure:
    """Make an empty figure that no window shows."""
    require()
    from matplotlib.figure import Figure

    return Figure(figsize=(width, 3.8), layout="constrained")
