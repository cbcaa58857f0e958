"""Speed of pyvirt, one file per subsystem, with its peers and a plain C loop beside it.

`data`, `timing`, `cloop` and `peers` are what the benchmarks share; the other modules hold them.
"""
