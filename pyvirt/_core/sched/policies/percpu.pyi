from pyvirt._core.sched.plug import Plug
from pyvirt.sched.numa import Numa

class PerCpu(Plug):
    def __init__(
        self,
        timeslice_ns: int = 10_000_000,
        balance_ns: int = 100_000_000,
        imbalance_percent: int = 25,
        numa: Numa | None = None,
    ) -> None: ...
