"""Tables of text: cells between separators become numbers, or numbers of keys.

Numbers are those that Python's `float` gives for the same text. Most need one exact multiplication
or division by a power of ten; for the others the interpreter's own function is called.
"""

from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc, PyMem_RawRealloc
from cpython.ref cimport PyObject
from libc.float cimport LDBL_MANT_DIG
from libc.math cimport NAN, isfinite, isnan
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.string cimport memchr, memcmp, memcpy, memset

from pyvirt.errors import InvalidTypeError

cdef extern from "Python.h":
    double PyOS_string_to_double(const char *, char **, PyObject *) except? -1.0

cdef enum:
    LONGEST = 400               # bytes of a number
    EXACT = 22                  # 10 ** 22 is the largest power of ten that a double holds exactly

cdef double[EXACT + 1] POWERS
for _i in range(EXACT + 1):
    POWERS[_i] = 10.0 ** _i


cdef class Keys:
    """Different texts, numbered from 0 in the order in which they were met."""

    def __cinit__(self):
        self.room = 1024
        self.count_room = 64
        self.slot_count = 128
        self.arena = <uint8_t *>PyMem_RawMalloc(self.room)
        self.start = <int64_t *>PyMem_RawMalloc((self.count_room + 1) * sizeof(int64_t))
        self.slots = <int64_t *>PyMem_RawMalloc(self.slot_count * sizeof(int64_t))
        if self.arena == NULL or self.start == NULL or self.slots == NULL:
            raise MemoryError("no memory for keys")
        self.start[0] = 0
        memset(self.slots, 255, self.slot_count * sizeof(int64_t))

    def __dealloc__(self):
        PyMem_RawFree(self.arena)
        PyMem_RawFree(self.start)
        PyMem_RawFree(self.slots)

    def __len__(self):
        return self.count

    def __reduce__(self):
        raise TypeError("Keys are not pickled")

    def names(self):
        """Give the keys in the order of their numbers."""
        cdef int64_t i
        return [
            self.arena[self.start[i] : self.start[i + 1]].decode("utf-8", "backslashreplace")
            for i in range(self.count)
        ]

    cdef int64_t code(self, const uint8_t *key, int64_t length) noexcept nogil:
        """The number of a key, a new one if it is new; -1 if there is no memory."""
        cdef uint64_t slot
        cdef int64_t n
        cdef void *more
        if 2 * self.count >= self.slot_count and not self.grow_slots():
            return -1
        slot = hash_of(key, length) & <uint64_t>(self.slot_count - 1)
        while True:
            n = self.slots[slot]
            if n < 0:
                break
            if self.start[n + 1] - self.start[n] == length and not memcmp(
                self.arena + self.start[n], key, length
            ):
                return n
            slot = (slot + 1) & <uint64_t>(self.slot_count - 1)
        if self.used + length > self.room:
            more = PyMem_RawRealloc(self.arena, 2 * (self.room + length))
            if more == NULL:
                return -1
            self.arena = <uint8_t *>more
            self.room = 2 * (self.room + length)
        if self.count == self.count_room:
            more = PyMem_RawRealloc(self.start, (2 * self.count_room + 1) * sizeof(int64_t))
            if more == NULL:
                return -1
            self.start = <int64_t *>more
            self.count_room *= 2
        memcpy(self.arena + self.used, key, length)
        self.used += length
        n = self.count
        self.count += 1
        self.start[self.count] = self.used
        self.slots[slot] = n
        return n

    cdef bint grow_slots(self) noexcept nogil:
        cdef int64_t count = 4 * self.slot_count
        cdef int64_t *slots = <int64_t *>PyMem_RawMalloc(count * sizeof(int64_t))
        cdef int64_t i
        cdef uint64_t slot
        if slots == NULL:
            return False
        memset(slots, 255, count * sizeof(int64_t))
        for i in range(self.count):
            slot = hash_of(self.arena + self.start[i], self.start[i + 1] - self.start[i])
            slot &= <uint64_t>(count - 1)
            while slots[slot] >= 0:
                slot = (slot + 1) & <uint64_t>(count - 1)
            slots[slot] = i
        PyMem_RawFree(self.slots)
        self.slots = slots
        self.slot_count = count
        return True


cdef inline uint64_t hash_of(const uint8_t *key, int64_t length) noexcept nogil:
    """FNV-1a, with its upper half folded into the lower, of which slots are made."""
    cdef uint64_t h = 0xCBF29CE484222325
    cdef int64_t i
    for i in range(length):
        h = (h ^ key[i]) * <uint64_t>0x100000001B3
    return h ^ h >> 32


cdef inline int read_simple(const uint8_t *p, const uint8_t *end, double *value) noexcept nogil:
    """Read a number that one operation on two exact numbers gives; False: any other text."""
    cdef uint64_t mantissa = 0
    cdef int digits = 0
    cdef int scale = 0
    cdef int exponent = 0
    cdef bint minus = False
    cdef bint minus_exponent = False
    cdef bint any_digit = False
    cdef uint8_t c
    cdef long double wide
    cdef uint64_t bits
    if p < end and (p[0] == 45 or p[0] == 43):
        minus = p[0] == 45
        p += 1
    while p < end:
        c = p[0] - 48
        if c > 9:
            break
        any_digit = True
        mantissa = mantissa * 10 + c
        digits += mantissa != 0
        p += 1
        if digits > 19:
            return False
    if p < end and p[0] == 46:
        p += 1
        while p < end:
            c = p[0] - 48
            if c > 9:
                break
            any_digit = True
            mantissa = mantissa * 10 + c
            digits += mantissa != 0
            scale += 1
            p += 1
            if digits > 19 or scale > 1000:
                return False
    if not any_digit:
        return False
    if p < end and (p[0] | 32) == 101:
        p += 1
        if p < end and (p[0] == 45 or p[0] == 43):
            minus_exponent = p[0] == 45
            p += 1
        if p == end:
            return False
        while p < end:
            c = p[0] - 48
            if c > 9 or exponent > 1000:
                return False
            exponent = exponent * 10 + c
            p += 1
    if p != end:
        return False
    scale = (-exponent if minus_exponent else exponent) - scale
    if scale < -EXACT or scale > EXACT:
        return False
    if mantissa <= <uint64_t>1 << 53:
        value[0] = <double>mantissa
        if scale < 0:
            value[0] /= POWERS[-scale]
        else:
            value[0] *= POWERS[scale]
    elif LDBL_MANT_DIG == 64:
        # x87 has 64 bits, so that the mantissa is exact; its result is rounded twice, which is
        # right but where it lies exactly between two doubles.
        wide = <long double>mantissa
        if scale < 0:
            wide /= <long double>POWERS[-scale]
        else:
            wide *= <long double>POWERS[scale]
        memcpy(&bits, &wide, sizeof(bits))
        if bits & 0x7FF == 0x400:
            return False
        value[0] = <double>wide
    else:
        return False
    if minus:
        value[0] = -value[0]
    return True


cdef int read_any(const uint8_t *p, const uint8_t *end, double *value) noexcept nogil:
    """Read what the interpreter takes for a number."""
    cdef char[LONGEST + 1] buffer
    if end - p > LONGEST or end == p or memchr(p, 0, end - p) != NULL:
        return False
    memcpy(buffer, p, end - p)
    buffer[end - p] = 0
    with gil:
        try:
            value[0] = PyOS_string_to_double(buffer, NULL, NULL)
        except ValueError:
            return False
    return True


def count_lines(const uint8_t[::1] text):
    """Count lines, of which the last may lack its end."""
    cdef const uint8_t *p
    cdef const uint8_t *end
    cdef int64_t n = 0
    if text.shape[0] == 0:
        return 0
    p = &text[0]
    end = p + text.shape[0]
    with nogil:
        while p != NULL and p < end:
            n += 1
            p = <const uint8_t *>memchr(p, 10, end - p)
            if p != NULL:
                p += 1
    return n


def parse_cells(
    const uint8_t[::1] text,
    uint8_t separator,
    const uint8_t[::1] kinds,
    list keys,
    double[:, ::1] numbers,
    int64_t[:, ::1] codes,
):
    """Read whole lines; those without anything in them are passed over.

    Parameters
    ----------
    text : buffer
        Lines of as many cells as there are kinds.
    separator : int
        The byte between cells. White space around a cell, and one pair of quotes, are dropped.
    kinds : bytes
        One ``kind_t`` for each column.
    keys : list of Keys
        For each column of kind KEY.
    numbers : ndarray of float64, shape (columns of numbers, at least the number of lines)
        Is written.
    codes : ndarray of int64, shape (columns of keys, at least the number of lines)
        Is written.

    Returns
    -------
    (int, int, int, int, int, int)
        Status, rows that were read; and where it went wrong: line and column from 0 on, first and
        last byte + 1 of the cell, or of the line.
    """
    cdef const uint8_t *base
    cdef const uint8_t *p
    cdef const uint8_t *end
    cdef const uint8_t *line
    cdef const uint8_t *line_end
    cdef const uint8_t *first = NULL
    cdef const uint8_t *last = NULL
    cdef int64_t columns = kinds.shape[0]
    cdef int64_t row = 0
    cdef int64_t number = 0
    cdef int64_t column = 0
    cdef int64_t at_number = 0
    cdef int64_t at_key = 0
    cdef int status = DONE
    cdef uint8_t kind
    cdef double value = 0
    cdef int64_t code
    cdef void *key_of[16]
    cdef int64_t wanted_numbers = 0
    cdef int64_t wanted_keys = 0
    for column in range(columns):
        wanted_numbers += kinds[column] == NUMBER or kinds[column] == OPTIONAL
        wanted_keys += kinds[column] == KEY
    if (
        columns == 0 or wanted_keys > 16 or len(keys) != wanted_keys
        or numbers.shape[0] != wanted_numbers or codes.shape[0] != wanted_keys
    ):
        raise InvalidTypeError("parse_cells: kinds do not fit numbers, codes and keys")
    for column in range(wanted_keys):
        if not isinstance(keys[column], Keys):
            raise InvalidTypeError("parse_cells: keys must be Keys")
        key_of[column] = <void *>keys[column]
    cdef int64_t lines = count_lines(text)
    if (wanted_numbers and numbers.shape[1] < lines) or (wanted_keys and codes.shape[1] < lines):
        raise InvalidTypeError(f"parse_cells: no room for {lines} lines")
    if lines == 0:
        return DONE, 0, 0, 0, 0, 0
    base = &text[0]
    end = base + text.shape[0]
    with nogil:
        line = base
        while line < end:
            line_end = <const uint8_t *>memchr(line, 10, end - line)
            if line_end == NULL:
                line_end = end
            first, last = line, line_end
            trim(&first, &last)
            if first == last:
                line = line_end + 1
                number += 1
                continue
            p = line
            at_number = at_key = 0
            for column in range(columns):
                if p > line_end:
                    status = BAD_COLUMNS
                    break
                first = p
                if column == columns - 1:
                    last = line_end
                    if memchr(p, separator, line_end - p) != NULL:
                        status = BAD_COLUMNS
                        break
                    p = line_end
                elif kinds[column] == SKIP:
                    p = <const uint8_t *>memchr(p, separator, line_end - p)
                    p = line_end + 1 if p == NULL else p + 1
                    continue
                else:
                    while p < line_end and p[0] != separator:
                        p += 1
                    last = p
                    p += 1
                kind = kinds[column]
                if kind == SKIP:
                    continue
                trim(&first, &last)
                if last - first > 1 and first[0] == 34 and (last - 1)[0] == 34:
                    first += 1
                    last -= 1
                    trim(&first, &last)
                if kind == KEY:
                    if first == last:
                        status = EMPTY
                        break
                    code = (<Keys>key_of[at_key]).code(first, last - first)
                    if code < 0:
                        status = NO_MEMORY
                        break
                    codes[at_key, row] = code
                    at_key += 1
                    continue
                if first == last:
                    if kind == NUMBER:
                        status = EMPTY
                        break
                    value = NAN
                elif not read_simple(first, last, &value) and not read_any(first, last, &value):
                    status = BAD_NUMBER
                    break
                elif not isfinite(value) and not (kind == OPTIONAL and isnan(value)):
                    status = NOT_FINITE
                    break
                numbers[at_number, row] = value
                at_number += 1
            if status != DONE:
                if status == BAD_COLUMNS:
                    first, last = line, line_end
                break
            row += 1
            number += 1
            line = line_end + 1
    if status == NO_MEMORY:
        raise MemoryError("no memory for keys")
    if status == DONE:
        return DONE, row, 0, 0, 0, 0
    return status, row, number, column, first - base, last - base


cdef inline void trim(const uint8_t **first, const uint8_t **last) noexcept nogil:
    """Drop white space, and control characters with it, at both ends."""
    while first[0] < last[0] and first[0][0] <= 32:
        first[0] += 1
    while last[0] > first[0] and (last[0] - 1)[0] <= 32:
        last[0] -= 1
