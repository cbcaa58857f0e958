"""Numba kernels over the arrays of hosts' memory; importing one of them imports Numba."""
