from pyvirt._core.sched.plug import Plug

class FixedPriority(Plug):
    def __init__(self, timeslice_ns: int | None = None) -> None: ...
