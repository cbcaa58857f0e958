"""The plot of scanned code."""

from pathlib import Path

import pytest

from pyvirt.errors import InvalidTypeError, InvalidValueError
from pyvirt.report import scan_bars
from pyvirt.x86.scan import Scan, scan

SAMPLES = Path(__file__).parents[1] / "data" / "x86"


@pytest.mark.parametrize("mode", [32, 64])
def test_bars_add_up_to_all(mode: int):
    pytest.importorskip("matplotlib")
    found = scan(SAMPLES / f"sample{mode}.elf")
    figure = scan_bars(found)
    (axes,) = figure.axes
    heights = [bar.get_height() for bar in axes.patches]
    assert sum(heights) == pytest.approx(100)
    assert heights[0] == pytest.approx(100 * found.total.share)


def test_what_cannot_be_drawn():
    with pytest.raises(InvalidTypeError, match="Scan"):
        scan_bars("a")  # type: ignore[arg-type]
    with pytest.raises(InvalidValueError, match="no instructions"):
        scan_bars(Scan("a", "ELF", 64, (), None))
