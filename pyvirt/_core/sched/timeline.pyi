from typing import Self

import numpy as np
import numpy.typing as npt
from typing_extensions import disjoint_base

SWITCH_DTYPE: np.dtype[np.void]

@disjoint_base
class Recorder:
    def __new__(cls, cpus: int, ring: int | None = None) -> Self: ...
    def take(
        self, clear: bool, now: int
    ) -> tuple[npt.NDArray[np.void], npt.NDArray[np.void], int, int]: ...
