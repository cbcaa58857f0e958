from pyvirt._core.sched.plug import Plug

class Cfs(Plug):
    def __init__(
        self,
        latency_ns: int | None = None,
        granularity_ns: int | None = None,
        wakeup_ns: int | None = None,
        tick_ns: int = 4_000_000,
        balance_ns: int | None = None,
        imbalance: int = 117,
        groups: bool = False,
    ) -> None: ...
