"""Scheduling policies, one file each (declarations for Cython)."""
