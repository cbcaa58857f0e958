"""`decode` is cimported: Python calls it through `pyvirt._core.decode.sweep`."""
