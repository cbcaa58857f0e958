"""Make x87-answers.npz: what this machine's processor answers to made-up x87 operations.

PYTHONPATH=tests python tests/data/make_x87_answers.py
"""

from pathlib import Path

import numpy as np

from x86.x87_cases import this_machine, vendor

COUNT, SEED = 4000, "stored"

if __name__ == "__main__":
    answers = this_machine(COUNT, SEED)
    fields = {name: answers[name] for name in answers.dtype.names}
    np.savez_compressed(Path(__file__).with_name("x87-answers.npz"), vendor=vendor(), **fields)
