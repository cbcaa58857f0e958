"""An outsider's loop over pyvirt's walker: what a simulator in Cython would do."""

from libc.stdint cimport uint64_t

from pyvirt.capi cimport ACCESS_READ, Walker, walk_t


def translate(Walker walker not None, const uint64_t[::1] vas, uint64_t[::1] pas):
    """Translate `vas` into `pas` (0 where it fails) and count what succeeded."""
    if pas.shape[0] < vas.shape[0]:
        raise ValueError(f"pas must have {vas.shape[0]} elements, got {pas.shape[0]}")
    cdef walk_t walk
    cdef Py_ssize_t i
    cdef Py_ssize_t succeeded = 0
    with nogil:
        for i in range(vas.shape[0]):
            if walker.translate_one_c(vas[i], ACCESS_READ, &walk) == 0:
                pas[i] = walk.pa
                succeeded += 1
            else:
                pas[i] = 0
    return succeeded
