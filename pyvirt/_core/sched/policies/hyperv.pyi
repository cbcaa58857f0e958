from typing import Literal

from pyvirt._core.sched.plug import Plug

class HyperV(Plug):
    def __init__(
        self,
        scheduler: Literal["classic", "core"] = "core",
        quantum_ns: int = 5_000_000,
        period_ns: int = 50_000_000,
        admission: bool = True,
    ) -> None: ...
