"""Ask unicorn for the answers of experiment X1, and write them where the package keeps them.

    python tests/data/make_protection_answers.py

What is stored came from unicorn 2.1.4; another version that answers otherwise fails X1.
"""

from pathlib import Path

import pyvirt.validation
from pyvirt.validation.protection_unicorn import answers


def main() -> None:
    """Write one line for each operation and privilege."""
    lines = ["what,cpl,answers"]
    lines += [f"{name},{cpl},{letters}" for (name, cpl), letters in answers().items()]
    where = Path(pyvirt.validation.__file__).with_name("protection_answers.csv")
    where.write_text("\n".join(lines) + "\n", encoding="ascii")


if __name__ == "__main__":
    main()
