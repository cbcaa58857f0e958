from collections.abc import Sequence
from typing import Any

from typing_extensions import disjoint_base

from pyvirt._core.interp.owner import Cpu
from pyvirt._core.shadow.engine import HyperCore

TECHNIQUES: tuple[str, ...]
PAGINGS: tuple[str, ...]
BOOKS: tuple[str, ...]
EVENT_NAMES: tuple[str, ...]
HYPERCALL_NAMES: tuple[str, ...]

@disjoint_base
class MonitorCore:
    @property
    def cpu(self) -> Cpu: ...
    @property
    def tables(self) -> tuple[HyperCore, ...]: ...
    def __init__(
        self,
        cpu: Cpu,
        technique: str,
        tables: Sequence[HyperCore] = (),
        cache: tuple[int, int, bool] = ...,
    ) -> None: ...
    def forget(self) -> None: ...
    def set_controls(self, intercept: int, exceptions: int, cluster: int, ports: bytes) -> None: ...
    def take_frame(self, frame: int) -> int: ...
    def run(self, budget: int) -> int: ...
    def counts(self) -> dict[str, Any]: ...
    def translation(self) -> tuple[dict[str, Any], list[tuple[Any, ...]]]: ...
