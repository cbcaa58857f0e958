from typing import Any

from pyvirt._core.sched.plug import Plug

class PerCpu(Plug):
    def __init__(
        self,
        timeslice_ns: int = 10_000_000,
        balance_ns: int = 100_000_000,
        imbalance_percent: int = 25,
        numa: Any = None,
    ) -> None: ...
