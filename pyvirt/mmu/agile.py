"""Rules of agile paging: when a guest's table leaves shadow mode, and when it returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from pyvirt.errors import InvalidTypeError, InvalidValueError

__all__ = ["AgileRules"]


@dataclass(frozen=True, slots=True)
class AgileRules:
    """When agile paging takes a guest's tables to nested mode and back, and what helps it.

    Attributes
    ----------
    writes : int
        Writes to a table that trap within an interval, after which it goes to nested mode with
        what is below it; 0: it never does. The published policy takes few, as a branch predictor
        does; 2 is recalled.
    interval : int
        Its length in events of all vCPUs (the published one is a second); 0: none ends.
    back : {"dirty", "all"}
        What returns to shadow mode when an interval ends: tables that were not written in it, by
        the D bits of what maps their frames; or the simplest variant, everything.
    granularity : {"table", "process"}
        Whether tables move by themselves, or each CR3 is in shadow or nested mode as a whole; the
        writes of a process are counted together then, and it returns if none of the tables that
        it had was written.
    hardware_ad : bool
        The processor sets A and D in the guest's tables, too, when it sets them in a shadow entry:
        with one more walk, but without an exit for the first write to a page.
    root_cache : int
        The processor keeps this many pairs of a guest's root and its shadow, 0 to 7, with which
        loads of CR3 need no exit while no table below is out of sync; 0: each load exits.

    Notes
    -----
    Gandhi, Hill, Swift: "Agile Paging: Exceeding the Best of Nested and Shadow Paging" (ISCA 2016);
    numbers are recalled from it.
    """

    writes: int = 2
    interval: int = 100_000
    back: Literal["dirty", "all"] = "dirty"
    granularity: Literal["table", "process"] = "table"
    hardware_ad: bool = False
    root_cache: int = 0

    def __post_init__(self) -> None:
        for name, accepted in (("back", ("dirty", "all")), ("granularity", ("table", "process"))):
            if getattr(self, name) not in accepted:
                raise InvalidValueError(
                    f"{name} must be one of {', '.join(accepted)}, got {getattr(self, name)!r:.80}"
                )
        if not isinstance(self.hardware_ad, bool):
            raise InvalidTypeError(
                f"hardware_ad must be True or False, got {self.hardware_ad!r:.80}"
            )

    def _numbers(self) -> dict[str, Any]:
        """Give what `HyperCore` takes."""
        return {
            "writes": self.writes,
            "interval": self.interval,
            "all_back": self.back == "all",
            "by_process": self.granularity == "process",
            "hardware_ad": self.hardware_ad,
            "root_cache": self.root_cache,
        }
