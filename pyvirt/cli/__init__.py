"""The ``pyvirt`` command. Only this package imports click and rich."""

from pyvirt.cli.app import main

__all__ = ["main"]
