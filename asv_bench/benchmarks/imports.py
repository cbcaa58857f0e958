"""What ``import pyvirt`` costs, against ``import numpy``, each in a new interpreter."""

import os
import statistics
import subprocess
import sys
from pathlib import Path

import pyvirt as pv

from .timing import target, unit

_CODE = "import time; t = time.process_time(); {}; print(time.process_time() - t)"
WHAT = {
    "import": "import pyvirt",
    # Names are loaded at first use. This is what a script pays that translates anything.
    "import and use": "from pyvirt import AddressSpace, NestedAddressSpace, PhysicalMemory",
}


def import_seconds(statement: str) -> float:
    """CPU seconds of a statement in a new interpreter, without the start of the interpreter."""
    # -P keeps the working directory off the path, and the path leads to the pyvirt that runs here
    # (asv clears PYTHONPATH).
    command = [sys.executable, "-P", "-c", _CODE.format(statement)]
    environment = os.environ | {"PYTHONPATH": str(Path(pv.__file__).parents[1])}
    done = subprocess.run(command, env=environment, capture_output=True, check=True, text=True)
    return float(done.stdout)


class Import:
    """Medians over pairs, in turn."""

    params = list(WHAT)
    param_names = ["what"]

    def setup(self, what):
        import_seconds(WHAT[what])  # compile to bytecode, fill the file cache

    @target("<", {"import": 1.3})
    @unit("times import numpy")
    def track_import_over_numpy(self, what):
        return statistics.median(
            import_seconds(WHAT[what]) / import_seconds("import numpy") for _ in range(9)
        )

    @unit("ms")
    def track_import_ms(self, what):
        return statistics.median(import_seconds(WHAT[what]) for _ in range(5)) * 1e3
