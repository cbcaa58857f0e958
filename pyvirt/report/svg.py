"""Figures of Matplotlib as SVG that stands within a page and takes its colours and fonts."""

from __future__ import annotations

import html
import io
import re
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pyvirt.report.plots import require

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["inline_svg"]

#: What only a file of its own needs: declarations, metadata with links, names of namespaces.
OUTSIDE = re.compile(
    r"^.*?(?=<svg)|<metadata>.*?</metadata>| xmlns(?::xlink)?=\"[^\"]*\"", re.DOTALL
)
NAMED = re.compile(r'((?: id=")|(?:href="#)|(?:url\(#))')


def inline_svg(figure: Figure, name: str, title: str, colours: Mapping[str, str]) -> str:
    """Give a figure as an ``svg`` element.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
        The figure.
    name : str
        Differs from figure to figure of a page; letters and digits.
    title : str
        For those who do not see it.
    colours : mapping of str to str
        The page's variables, without ``--``, and the ``#rrggbb`` that stands for each.

    Returns
    -------
    str
        Without references to anything outside; text is text. The same figure gives the same bytes.
    """
    require()
    from matplotlib import rc_context

    written = io.StringIO()
    rules: Any = {"svg.hashsalt": name, "svg.fonttype": "none", "hatch.linewidth": 0.6}
    with rc_context(rules), warnings.catch_warnings():
        # names may have letters that this font lacks: the reader's browser will have another
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(written, format="svg", transparent=True, metadata={"Date": None})
    text = OUTSIDE.sub("", written.getvalue())
    text = NAMED.sub(rf"\g<1>{name}-", text)
    for variable, colour in colours.items():
        text = text.replace(colour, f"var(--{variable})")
    head, rest = text.split(">", 1)
    head = re.sub(r' (?:width|height)="[^"]*"', "", head)
    return f'{head} role="img" aria-label="{html.escape(title)}">{rest.strip()}\n'
