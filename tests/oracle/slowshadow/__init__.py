"""KVM's shadow MMU (policy `unsync`) and NPT as KVM fills it, in plain Python, one rule at a time.

Written from the READMEs of the guest-image data alone (`../shared/data/guest-images/README.md`,
section kvm_exits.csv, quoted as "exits"; `programs/README.md`, quoted as "programs"), mmu.md 3 and
image.md 4. Each rule stands in one place, with the sentence that it comes from. It shares nothing
with the compiled engines.

`replay` runs an event program, `run_workload` one of the exit workloads, `random_program` makes
new programs; `Rules` turns rules off.
"""

from oracle.slowshadow.machine import MODES, build_mmu
from oracle.slowshadow.programs import (
    Op,
    Program,
    Replay,
    initial_memory,
    load_programs,
    replay,
    replay_on,
    save_programs,
)
from oracle.slowshadow.random_programs import ACTIONS, random_program
from oracle.slowshadow.rules import KVM, Rules
from oracle.slowshadow.workloads import Workload, run_workload

__all__ = [
    "ACTIONS",
    "KVM",
    "MODES",
    "Op",
    "Program",
    "Replay",
    "Rules",
    "Workload",
    "build_mmu",
    "initial_memory",
    "load_programs",
    "random_program",
    "replay",
    "replay_on",
    "run_workload",
    "save_programs",
]
