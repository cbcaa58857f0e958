# What crosses the Python border: checked conversions of arguments to arrays and integers.

from libc.stdint cimport uint64_t

cdef object as_u64(object values, str name)
cdef object as_output(object array, object dtype, tuple shape, str name)
cdef object as_int(object value, str name, object low, object high)


cdef inline uint64_t as_word(object value, str name) except? 0:
    """`value` as an integer of 64 bits: `as_int` without its comparisons, which take longer."""
    if type(value) is int:
        try:
            return value
        except OverflowError:
            pass                    # said below, with the name
    return as_int(value, name, 0, 0xFFFFFFFFFFFFFFFF)
