from collections.abc import Sequence
from typing import Any, Final, Literal, Self

import numpy as np
import numpy.typing as npt
from typing_extensions import disjoint_base

TABLE_DTYPE: Final[np.dtype[Any]]
SETS: Final[tuple[int, ...]]
KERNELS: Final[tuple[str, ...]]

@disjoint_base
class ReuseProfile:
    def __new__(
        cls,
        sets: Sequence[int] = ...,
        max_ways: int | Sequence[int] = ...,
        *,
        page_shift: int = ...,
        kernel: Literal["auto", "portable", "avx2", "avx512"] = ...,
    ) -> Self: ...
    @property
    def sets(self) -> tuple[int, ...]: ...
    @property
    def max_ways(self) -> tuple[int, ...]: ...
    @property
    def page_shift(self) -> int: ...
    @property
    def accesses(self) -> int: ...
    def feed(self, vas: npt.ArrayLike) -> None: ...
    def misses(self, sets: int, ways: int) -> int: ...
    def table(self) -> npt.NDArray[np.void]: ...
