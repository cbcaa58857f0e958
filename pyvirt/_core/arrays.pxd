# What crosses the Python border: checked conversions of arguments to arrays.

cdef object as_u64(object values, str name)
cdef object as_output(object array, object dtype, tuple shape, str name)
cdef object as_int(object value, str name, object low, object high)
