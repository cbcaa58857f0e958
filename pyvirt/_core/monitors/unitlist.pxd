# Translation units and their counts, for Python.

from pyvirt._core.monitors.units cimport translator_t

cdef dict translation_counts(const translator_t *t)
cdef list translation_units(const translator_t *t)
