from collections.abc import Mapping
from typing import Any

import numpy as np
from typing_extensions import disjoint_base

from pyvirt._core.sched.plug import Plug

SCHED_RECORD: np.dtype[np.void]
WORLD_RECORD: np.dtype[np.void]
CPU_RECORD: np.dtype[np.void]
VM_RECORD: np.dtype[np.void]
PLUG_RECORD: np.dtype[np.void]
SERVICES_RECORD: np.dtype[np.void]
STRETCH_RECORD: np.dtype[np.void]
TURN_RECORD: np.dtype[np.void]

@disjoint_base
class NativePolicy(Plug):
    hooks: Any
    def __init__(
        self,
        name: str,
        hooks: Mapping[str, Any] | Any,
        *,
        own: np.ndarray[Any, Any] | np.generic | bytes | None = None,
        cpu: np.dtype[Any] | int = 0,
        world: np.dtype[Any] | int = 0,
        vm: np.dtype[Any] | int = 0,
        trees: int = 0,
        vm_params: Mapping[str, tuple[int, int, int]] | None = None,
    ) -> None: ...
