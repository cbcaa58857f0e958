"""``python -m pyvirt`` is the ``pyvirt`` command."""

from pyvirt.cli import main

if __name__ == "__main__":
    main(prog_name="pyvirt")
