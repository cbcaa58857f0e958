"""Numba kernels over the arrays of a cluster; importing one of them imports Numba."""
