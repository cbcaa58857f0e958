"""Text traces: lines of valgrind's lackey, of Dinero and of CSV files to events and back.

Each parser takes whole lines from `text` and fills `out` until one of them is used up. A line
without its end is left alone unless nothing follows (`last`).
"""

import numpy as np

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memchr, memcpy, memset

from pyvirt._core.events cimport (
    EVENT_FETCH,
    EVENT_LOAD,
    EVENT_MODIFY,
    EVENT_STORE,
    event_t,
)
from pyvirt.errors import InvalidValueError

cdef enum status_t:
    MORE = 0                    # the text is used up
    FULL = 1                    # the room is used up
    BAD_LINE = 2
    BAD_NUMBER = 3              # not a number, or more than its field holds
    BAD_OP = 4
    BAD_COLUMNS = 5
    BAD_SIZE = 6

cdef enum:                      # fields of an event, by which columns are known
    COLUMN_OP = 0
    COLUMN_SIZE = 1
    COLUMN_VCPU = 2
    COLUMN_ARG = 3
    COLUMN_ADDR = 4
    COLUMN_VALUE = 5
    COLUMNS = 6

cdef enum:
    NAME = 16                   # bytes of an operation's name, padded with zeros

cdef struct scan_t:
    const uint8_t *at           # beginning of the line
    const uint8_t *end          # of the text
    event_t *out
    event_t *out_end
    uint64_t lines              # that are done
    uint64_t skipped            # records that are no event
    uint32_t arg

cdef uint8_t[256] DIGIT         # value of a hexadecimal digit, 16 for other bytes
memset(DIGIT, 16, 256)
for _i in range(10):
    DIGIT[48 + _i] = _i
for _i in range(10, 16):
    DIGIT[55 + _i] = DIGIT[87 + _i] = _i

cdef const uint8_t *HEX = b"0123456789abcdef"


cdef event_t *put(
    event_t *out, uint8_t op, uint64_t addr, uint64_t size, uint16_t vcpu, uint32_t arg
) noexcept nogil:
    """Write an access and return where the next one goes.

    The size has eight bits. Beyond them only the pages matter: one event for each.
    """
    cdef uint64_t last = addr + size - 1
    cdef uint64_t piece
    if size > 255 and last < addr:
        last = <uint64_t>-1
    while True:
        piece = size
        if size > 255:
            piece = 4096 - (addr & 4095)
            if piece > last - addr:
                piece = last - addr + 1
        out.op = op
        out.size = 255 if piece > 255 else <uint8_t>piece
        out.vcpu = vcpu
        out.arg = arg
        out.addr = addr
        out.value = 0
        out += 1
        if size <= 255 or last - addr < piece:
            return out
        addr += piece


cdef inline const uint8_t *line_end(scan_t *s, bint last) noexcept nogil:
    """Where the line ends, or NULL if that is not in the text."""
    cdef const uint8_t *end = <const uint8_t *>memchr(s.at, 10, s.end - s.at)
    if end == NULL and last:
        return s.end
    return end


cdef inline const uint8_t *trimmed(const uint8_t *start, const uint8_t *end) noexcept nogil:
    while end > start and (end - 1)[0] <= 32:
        end -= 1
    return end


cdef inline const uint8_t *unblanked(const uint8_t *p, const uint8_t *end) noexcept nogil:
    while p < end and (p[0] == 32 or p[0] == 9):
        p += 1
    return p


cdef inline const uint8_t *read_hex(
    const uint8_t *p, const uint8_t *end, uint64_t *value
) noexcept nogil:
    """Read digits, and return where they end, or NULL if there are none or too many."""
    cdef const uint8_t *start = p
    cdef uint64_t v = 0
    cdef uint8_t digit
    while p < end:
        digit = DIGIT[p[0]]
        if digit > 15:
            break
        if v >> 60:
            return NULL
        v = v << 4 | digit
        p += 1
    value[0] = v
    if p == start:
        return NULL
    return p


cdef inline const uint8_t *read_decimal(
    const uint8_t *p, const uint8_t *end, uint64_t *value
) noexcept nogil:
    cdef const uint8_t *start = p
    cdef uint64_t tenth = (<uint64_t>-1) // 10
    cdef uint64_t v = 0
    cdef uint64_t digit
    while p < end:
        digit = <uint64_t>(p[0]) - 48
        if digit > 9:
            break
        if v > tenth or (v == tenth and digit > 5):
            return NULL
        v = v * 10 + digit
        p += 1
    value[0] = v
    if p == start:
        return NULL
    return p


cdef inline const uint8_t *read_number(
    const uint8_t *p, const uint8_t *end, uint64_t *value
) noexcept nogil:
    """Read a number, decimal or with 0x."""
    if end - p > 2 and p[0] == 48 and (p[1] | 32) == 120:
        return read_hex(p + 2, end, value)
    return read_decimal(p, end, value)


cdef status_t lackey_line(
    scan_t *s, const uint8_t *p, const uint8_t *end
) noexcept nogil:
    cdef uint64_t addr, size
    cdef uint8_t op
    if end - p < 6:
        return BAD_LINE if end > p else MORE
    if p[0] == 32 and p[2] == 32:
        if p[1] == 76:
            op = EVENT_LOAD
        elif p[1] == 83:
            op = EVENT_STORE
        elif p[1] == 77:
            op = EVENT_MODIFY
        else:
            return BAD_LINE
    elif p[0] == 73 and p[1] == 32 and p[2] == 32:
        op = EVENT_FETCH
    elif p[0] == p[1] and (p[0] == 61 or p[0] == 45 or p[0] == 42):
        return MORE             # what valgrind itself says: == -- **
    elif p[0] == 83 and p[1] == 66 and p[2] == 32:
        s.skipped += 1          # --trace-superblocks
        return MORE
    else:
        return BAD_LINE
    p = read_hex(p + 3, end, &addr)
    if p == NULL or p == end or p[0] != 44:
        return BAD_LINE
    p = read_decimal(p + 1, end, &size)
    if p == NULL or p != end:
        return BAD_LINE
    if size > MOST_BYTES:
        return BAD_SIZE
    s.out = put(s.out, op, addr, size, 0, s.arg)
    return MORE


cdef status_t din_line(scan_t *s, const uint8_t *p, const uint8_t *end) noexcept nogil:
    cdef uint64_t addr, size = 0
    cdef uint8_t label
    p = unblanked(p, end)
    if p == end or p[0] == 35:
        return MORE
    label = p[0]
    p += 1
    if p == end or (p[0] != 32 and p[0] != 9):
        return BAD_LINE
    p = unblanked(p, end)
    if end - p > 2 and p[0] == 48 and (p[1] | 32) == 120:
        p += 2
    p = read_hex(p, end, &addr)
    if p == NULL or (p < end and p[0] > 32):
        return BAD_NUMBER
    if label >= 65:             # the extended form: a letter, and the size, hexadecimal, too
        label |= 32
        p = read_hex(unblanked(p, end), end, &size)
        if p == NULL or (p < end and p[0] > 32):
            return BAD_NUMBER
        if size > MOST_BYTES:
            return BAD_SIZE
    if label == 48 or label == 114:
        s.out = put(s.out, EVENT_LOAD, addr, size, 0, s.arg)
    elif label == 49 or label == 119:
        s.out = put(s.out, EVENT_STORE, addr, size, 0, s.arg)
    elif label == 50 or label == 105:
        s.out = put(s.out, EVENT_FETCH, addr, size, 0, s.arg)
    elif label == 51 or label == 52 or label == 109 or label == 99 or label == 118:
        s.skipped += 1          # unknown accesses; write back or invalidate caches
    else:
        return BAD_OP
    return MORE


cdef struct columns_t:
    int count
    uint8_t[COLUMNS] kind       # column_t of each
    const uint8_t *names        # NAME bytes each
    const uint8_t *codes
    Py_ssize_t operations


cdef int find_op(const columns_t *c, const uint8_t *p, const uint8_t *end) noexcept nogil:
    """Number of the operation with this name, or -1."""
    cdef uint64_t[2] word
    cdef uint64_t[2] name
    cdef Py_ssize_t i
    if end - p >= NAME:
        return -1
    word[0] = word[1] = 0
    memcpy(word, p, end - p)
    for i in range(end - p):
        if 65 <= p[i] <= 90:
            (<uint8_t *>word)[i] |= 32
    for i in range(c.operations):
        memcpy(name, c.names + i * NAME, NAME)
        if name[0] == word[0] and name[1] == word[1]:
            return c.codes[i]
    return -1


cdef inline bint known_op(const columns_t *c, uint64_t op) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(c.operations):
        if c.codes[i] == op:
            return True
    return False


cdef status_t csv_line(
    scan_t *s, const columns_t *c, const uint8_t *p, const uint8_t *end
) noexcept nogil:
    cdef uint64_t[COLUMNS] field
    cdef const uint8_t *word
    cdef uint64_t value = 0
    cdef int i, op
    p = unblanked(p, end)
    if p == end or p[0] == 35:
        return MORE
    memset(field, 0, sizeof(field))
    field[COLUMN_OP] = EVENT_LOAD
    for i in range(c.count):
        if i:
            if p == end:
                return BAD_COLUMNS
            if p[0] != 44:
                return BAD_NUMBER
            p = unblanked(p + 1, end)
        if c.kind[i] == COLUMN_OP and p < end and (p[0] < 48 or p[0] > 57):
            word = p
            while p < end and p[0] > 32 and p[0] != 44:
                p += 1
            op = find_op(c, word, p)
            if op < 0:
                return BAD_OP
            value = op
        else:
            p = read_number(p, end, &value)
            if p == NULL:
                return BAD_NUMBER
            if c.kind[i] == COLUMN_OP and not known_op(c, value):
                return BAD_OP
        field[c.kind[i]] = value
        p = unblanked(p, end)
    if p != end:
        return BAD_NUMBER if p[0] != 44 else BAD_COLUMNS
    if field[COLUMN_VCPU] >> 16 or field[COLUMN_ARG] >> 32:
        return BAD_NUMBER
    if field[COLUMN_SIZE] > 255:
        if field[COLUMN_SIZE] > MOST_BYTES or not EVENT_LOAD <= field[COLUMN_OP] <= EVENT_MODIFY:
            return BAD_SIZE
    s.out = put(s.out, <uint8_t>field[COLUMN_OP], field[COLUMN_ADDR], field[COLUMN_SIZE],
                <uint16_t>field[COLUMN_VCPU], <uint32_t>field[COLUMN_ARG])
    if field[COLUMN_SIZE] <= 255:
        (s.out - 1).value = field[COLUMN_VALUE]
    return MORE


cdef enum format_t:
    LACKEY = 0
    DIN = 1
    CSV = 2


cdef status_t read_lines(
    scan_t *s, format_t kind, const columns_t *columns, bint last
) noexcept nogil:
    """Take lines until the text or the room ends, or one is wrong: `s.at` is its beginning."""
    cdef const uint8_t *end
    cdef const uint8_t *stop
    cdef status_t status
    while s.at < s.end:
        if s.out_end - s.out < MOST_EVENTS:
            return FULL
        end = line_end(s, last)
        if end == NULL:
            break
        stop = trimmed(s.at, end)
        if kind == LACKEY:
            status = lackey_line(s, s.at, stop)
        elif kind == DIN:
            status = din_line(s, s.at, stop)
        else:
            status = csv_line(s, columns, s.at, stop)
        if status != MORE:
            return status
        s.lines += 1
        s.at = min(end + 1, s.end)
    return MORE


cdef object scanned(
    format_t kind, const columns_t *columns, const uint8_t[::1] text, uint8_t[::1] out,
    bint last, uint32_t arg
):
    cdef scan_t s
    cdef status_t status
    cdef Py_ssize_t room = out.shape[0] // <Py_ssize_t>sizeof(event_t)
    if text.shape[0] == 0:
        return MORE, 0, 0, 0, 0
    if room == 0:
        return FULL, 0, 0, 0, 0
    s.at = &text[0]
    s.end = s.at + text.shape[0]
    s.out = <event_t *>&out[0]
    s.out_end = s.out + room
    s.lines = s.skipped = 0
    s.arg = arg
    with nogil:
        status = read_lines(&s, kind, columns, last)
    return status, s.at - &text[0], s.out - <event_t *>&out[0], s.lines, s.skipped


def parse_lackey(const uint8_t[::1] text, uint8_t[::1] out, bint last, uint32_t arg):
    """Parse what ``valgrind --tool=lackey --trace-mem=yes`` writes.

    Parameters
    ----------
    text : bytes-like
        Beginning at a line.
    out : ndarray of uint8
        Room for events, as bytes.
    last : bool
        Whether the end of the text ends the last line.
    arg : int
        For the `arg` of the events.

    Returns
    -------
    (int, int, int, int, int)
        Status; bytes, events, lines and lines without an event that were done.
    """
    return scanned(LACKEY, NULL, text, out, last, arg)


def parse_din(const uint8_t[::1] text, uint8_t[::1] out, bint last, uint32_t arg):
    """Parse the input of Dinero, traditional or extended; see `parse_lackey`."""
    return scanned(DIN, NULL, text, out, last, arg)


def parse_csv(
    const uint8_t[::1] text, uint8_t[::1] out, bint last, const uint8_t[::1] kinds,
    const uint8_t[:, ::1] names, const uint8_t[::1] codes
):
    """Parse rows of numbers and names of operations; see `parse_lackey`.

    Parameters
    ----------
    text, out, last
        As for `parse_lackey`.
    kinds : bytes
        Which field of an event each column is.
    names : ndarray of uint8
        Names of the operations in small letters, 16 bytes each.
    codes : bytes
        Their numbers.

    Returns
    -------
    (int, int, int, int, int)
        As from `parse_lackey`.
    """
    cdef columns_t columns
    cdef Py_ssize_t i
    if not 1 <= kinds.shape[0] <= COLUMNS:
        raise InvalidValueError(f"kinds must be 1 to {COLUMNS} columns, got {kinds.shape[0]}")
    if names.shape[1] != NAME or names.shape[0] != codes.shape[0] or not codes.shape[0]:
        raise InvalidValueError(f"names must be {codes.shape[0]} times {NAME} bytes")
    for i in range(kinds.shape[0]):
        if kinds[i] >= COLUMNS:
            raise InvalidValueError(f"kinds must be below {COLUMNS}, got {kinds[i]}")
        columns.kind[i] = kinds[i]
    columns.count = <int>kinds.shape[0]
    columns.names = &names[0, 0]
    columns.codes = &codes[0]
    columns.operations = codes.shape[0]
    return scanned(CSV, &columns, text, out, last, 0)


cdef inline uint8_t *write_hex(uint8_t *p, uint64_t value, int width) noexcept nogil:
    """Write hexadecimal digits, at least `width`."""
    cdef int digits = 1
    cdef int i
    while digits < 16 and value >> 4 * digits:
        digits += 1
    digits = max(digits, width)
    for i in range(digits):
        p[i] = HEX[value >> 4 * (digits - 1 - i) & 15]
    return p + digits


cdef inline uint8_t *write_decimal(uint8_t *p, uint64_t value) noexcept nogil:
    cdef uint8_t[20] digits
    cdef int n = 0
    while True:
        digits[n] = <uint8_t>(48 + value % 10)
        n += 1
        value //= 10
        if not value:
            break
    while n:
        n -= 1
        p[0] = digits[n]
        p += 1
    return p


cdef inline uint8_t *write_lackey(uint8_t *p, const event_t *e) noexcept nogil:
    p[0] = p[1] = p[2] = 32
    if e.op == EVENT_FETCH:
        p[0] = 73
    else:
        p[1] = 76 if e.op == EVENT_LOAD else 83 if e.op == EVENT_STORE else 77
    p = write_hex(p + 3, e.addr, 8)
    p[0] = 44
    p = write_decimal(p + 1, e.size)
    p[0] = 10
    return p + 1


cdef inline uint8_t *write_din(uint8_t *p, const event_t *e) noexcept nogil:
    cdef bint both = e.op == EVENT_MODIFY
    p[0] = 48 if both or e.op == EVENT_LOAD else 49 if e.op == EVENT_STORE else 50
    p[1] = 32
    p = write_hex(p + 2, e.addr, 1)
    p[0] = 10
    p += 1
    if both:                    # Dinero has no word for it: a read, then a write
        p[0] = 49
        p[1] = 32
        p = write_hex(p + 2, e.addr, 1)
        p[0] = 10
        p += 1
    return p


cdef inline uint8_t *write_csv(
    uint8_t *p, const event_t *e, const uint8_t *names
) noexcept nogil:
    cdef const uint8_t *name = names + e.op * NAME
    while name[0]:
        p[0] = name[0]
        p += 1
        name += 1
    p[0] = 44
    p = write_decimal(p + 1, e.size)
    p[0] = 44
    p = write_decimal(p + 1, e.vcpu)
    p[0] = 44
    p = write_decimal(p + 1, e.arg)
    p[0] = 44
    p[1] = 48
    p[2] = 120
    p = write_hex(p + 3, e.addr, 1)
    p[0] = 44
    p[1] = 48
    p[2] = 120
    p = write_hex(p + 3, e.value, 1)
    p[0] = 10
    return p + 1


cdef enum:
    LONGEST = 80                # bytes that an event becomes, at most


cdef object written(format_t kind, const uint8_t[::1] events, const uint8_t *names):
    cdef Py_ssize_t count = events.shape[0] // <Py_ssize_t>sizeof(event_t)
    cdef const event_t *e
    cdef uint8_t[::1] out
    cdef uint8_t *p
    cdef Py_ssize_t i
    text = np.empty(max(1, count * LONGEST), np.uint8)
    out = text
    p = &out[0]
    if count:
        e = <const event_t *>&events[0]
        with nogil:
            for i in range(count):
                if kind == LACKEY:
                    p = write_lackey(p, e + i)
                elif kind == DIN:
                    p = write_din(p, e + i)
                else:
                    p = write_csv(p, e + i, names)
    return text[:p - &out[0]]


def format_lackey(const uint8_t[::1] events):
    """Write accesses as lackey does.

    Parameters
    ----------
    events : ndarray of uint8
        Accesses, as bytes.

    Returns
    -------
    ndarray of uint8
        The lines.
    """
    return written(LACKEY, events, NULL)


def format_din(const uint8_t[::1] events):
    """Write accesses as Dinero reads them; see `format_lackey`."""
    return written(DIN, events, NULL)


def format_csv(const uint8_t[::1] events, const uint8_t[:, ::1] names):
    """Write events as rows; `names` holds 16 bytes, the last of them 0, for each number."""
    if names.shape[0] != 256 or names.shape[1] != NAME or np.any(np.asarray(names)[:, NAME - 1]):
        raise InvalidValueError(f"names must be 256 times {NAME} bytes that end in 0")
    return written(CSV, events, &names[0, 0])
