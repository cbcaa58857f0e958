from typing import Literal

import numpy as np
import numpy.typing as npt

from pyvirt._core.shadow.engine import HyperCore

METHODS: dict[str, int]

class LoggedCore(HyperCore):
    def log_dirty(
        self,
        first: int = ...,
        count: int | None = ...,
        on: bool = ...,
        method: Literal["write_protect", "pml"] = ...,
        all_set: bool = ...,
    ) -> None: ...
    def dirty(
        self, first: int = ..., count: int | None = ..., clear: bool = ...
    ) -> npt.NDArray[np.uint64]: ...
    def clear_dirty(self, frames: npt.ArrayLike) -> int: ...
