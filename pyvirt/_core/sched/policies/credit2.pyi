from typing import Literal

from pyvirt._core.sched.plug import Plug

class Credit2(Plug):
    def __init__(
        self,
        *,
        runqueue: Literal["all", "cpu"] = "all",
        credit_ns: int = 10_000_000,
        carryover_ns: int = 500_000,
        min_run_ns: int = 500_000,
        max_run_ns: int = 10_000_000,
        ratelimit_ns: int = 1_000_000,
        cap_period_ns: int = 10_000_000,
        migrate_resist_ns: int = 500_000,
        migrate_compensation_ns: int = 50_000,
        load_window_ns: int = 1 << 30,
        balance_under: int = 0,
        balance_over: int = -3,
    ) -> None: ...
