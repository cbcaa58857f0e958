from typing import Any

import numpy as np
import numpy.typing as npt
from typing_extensions import disjoint_base

from pyvirt._core.physmem import PhysMem

MODES: dict[str, int]

@disjoint_base
class MmuOwner:
    def __init__(
        self,
        mode: str,
        mem: PhysMem | None,
        geometry: Any,
        guest: dict[str, Any],
        host: dict[str, Any] | None,
        cr3: int,
        nested_root: int,
        vcpus: int,
        cores: int | None,
        vpids: bool,
        pml: bool,
        conservative: bool,
        prefetch: bool | str,
        seeds: npt.NDArray[np.uint64],
        data_cache: Any,
        ring: npt.NDArray[Any] | None,
        frames_of: Any = ...,
    ) -> None: ...
    @property
    def mem(self) -> PhysMem | None: ...
    @property
    def geometry(self) -> Any: ...
    @property
    def counters(self) -> npt.NDArray[Any]: ...
    @property
    def frames_of(self) -> Any: ...
    @property
    def mode(self) -> str: ...
    @property
    def vcpus(self) -> int: ...
    @property
    def cores(self) -> int: ...
    @property
    def records_written(self) -> int: ...
    def _arguments(self) -> tuple[Any, ...]: ...
    def _state(self) -> tuple[Any, ...]: ...
    def _set_state(self, state: tuple[Any, ...]) -> None: ...
