from pyvirt._core.sched.plug import Plug

class Rtds(Plug):
    def __init__(self) -> None: ...
