"""Binary traces: records of ChampSim, drmemtrace and gem5 to events and back.

Each parser takes whole records from `data` and fills `out` until one of them is used up.
"""

import numpy as np

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from pyvirt._core.events cimport (
    EVENT_FETCH,
    EVENT_LOAD,
    EVENT_MODIFY,
    EVENT_STORE,
    event_t,
)
from pyvirt._core.lines cimport MOST_BYTES, MOST_EVENTS, put
from pyvirt.errors import InvalidValueError

cdef enum status_t:
    MORE = 0                    # the data are used up but for a part of a record
    FULL = 1                    # the room is used up
    BAD_RECORD = 2
    THREAD = 3                  # a thread's records begin: the caller knows its vCPU
    BAD_VERSION = 4
    BAD_SIZE = 5

cdef enum:
    GEM5_READ = 1               # MemCmd::ReadReq
    GEM5_WRITE = 4              # MemCmd::WriteReq
    GEM5_FETCH = 0x100          # Request::INST_FETCH
    LONGEST_PACKET = 1 << 16    # bytes; one with all fields has 60


# ------------------------------------------------------------------------------------ ChampSim

cdef inline event_t *champsim_event(
    event_t *out, uint8_t op, uint64_t addr, uint32_t arg
) noexcept nogil:
    """Write an access unless its slot is unused."""
    if not addr:
        return out
    return put(out, op, addr, 0, 0, arg)


def parse_champsim(const uint8_t[::1] data, uint8_t[::1] out, bint wide, uint32_t arg):
    """Parse instructions: a fetch, then its loads, then its stores.

    Parameters
    ----------
    data : bytes-like
        Beginning at a record.
    out : ndarray of uint8
        Room for events, as bytes.
    wide : bool
        Whether the records are CloudSuite's of 96 bytes, not the usual of 64.
    arg : int
        For the `arg` of the events.

    Returns
    -------
    (int, int, int)
        Status; bytes and events that were done.
    """
    cdef Py_ssize_t count, _i, k
    cdef Py_ssize_t room = out.shape[0] // <Py_ssize_t>sizeof(event_t)
    cdef Py_ssize_t size = sizeof(cloudsuite_t) if wide else sizeof(champsim_t)
    cdef int stores = 4 if wide else 2
    cdef event_t *start
    cdef event_t *e
    cdef event_t *end
    cdef const uint8_t *p
    cdef cloudsuite_t r
    cdef status_t status = MORE
    count = data.shape[0] // size
    if count == 0:
        return MORE, 0, 0
    if room == 0:
        return FULL, 0, 0
    p = &data[0]
    e = start = <event_t *>&out[0]
    end = e + room
    with nogil:
        for _i in range(count):
            if end - e < 9:
                status = FULL
                break
            if wide:
                memcpy(&r, p, sizeof(r))
            else:               # the same fields, with two places for stores
                memcpy(&r.ip, p, 10)
                memcpy(r.destination_memory, p + 16, 16)
                memcpy(r.source_memory, p + 32, 32)
            if r.is_branch > 1 or r.branch_taken > 1:
                status = BAD_RECORD
                break
            e = champsim_event(e, EVENT_FETCH, r.ip, arg)
            for k in range(4):
                e = champsim_event(e, EVENT_LOAD, r.source_memory[k], arg)
            for k in range(stores):
                e = champsim_event(e, EVENT_STORE, r.destination_memory[k], arg)
            p += size
    return status, p - &data[0], e - start


cdef inline bint champsim_add(
    cloudsuite_t *r, const event_t *e, int stores
) noexcept nogil:
    """Add a data access to an instruction if it has a place for it."""
    cdef int load = 0
    cdef int store = 0
    while load < 4 and r.source_memory[load]:
        load += 1
    while store < stores and r.destination_memory[store]:
        store += 1
    if e.op != EVENT_STORE and load == 4 or e.op != EVENT_LOAD and store == stores:
        return False
    if not r.ip and e.op != EVENT_STORE and store:
        return False            # without an instruction nothing is lost by keeping the order
    if e.op != EVENT_STORE:
        r.source_memory[load] = e.addr
    if e.op != EVENT_LOAD:
        r.destination_memory[store] = e.addr
    return True


def format_champsim(
    const uint8_t[::1] events, uint8_t[::1] pending, bint begun, bint wide, bint last
):
    """Write accesses as instructions: what follows a fetch is its data.

    Parameters
    ----------
    events : ndarray of uint8
        Accesses with addresses other than 0, as bytes.
    pending : ndarray of uint8
        96 bytes, the instruction that is not complete.
    begun : bool
        Whether there is such an instruction.
    wide : bool
        CloudSuite's records.
    last : bool
        Whether to write the pending instruction, too.

    Returns
    -------
    (ndarray of uint8, bool)
        The records; whether an instruction is pending.
    """
    cdef Py_ssize_t count = events.shape[0] // <Py_ssize_t>sizeof(event_t)
    cdef Py_ssize_t size = sizeof(cloudsuite_t) if wide else sizeof(champsim_t)
    cdef const event_t *e = <const event_t *>&events[0] if count else NULL
    cdef cloudsuite_t r
    cdef uint8_t[::1] out
    cdef uint8_t *p
    cdef Py_ssize_t i
    cdef uint64_t ip
    cdef int stores = 4 if wide else 2
    if pending.shape[0] < <Py_ssize_t>sizeof(r):
        raise InvalidValueError(f"pending must have {sizeof(r)} bytes")
    records = np.empty((count + 1) * size, np.uint8)
    out = records
    p = &out[0]
    memcpy(&r, &pending[0], sizeof(r))
    with nogil:
        for i in range(count):
            if e[i].op == EVENT_FETCH:
                if begun:
                    p = champsim_write(p, &r, wide)
                memset(&r, 0, sizeof(r))
                r.ip = e[i].addr
                begun = True
            elif not begun or not champsim_add(&r, e + i, stores):
                ip = r.ip if begun else 0
                if begun:
                    p = champsim_write(p, &r, wide)
                memset(&r, 0, sizeof(r))
                r.ip = ip
                begun = True
                champsim_add(&r, e + i, stores)
        if last and begun:
            p = champsim_write(p, &r, wide)
            begun = False
    memcpy(&pending[0], &r, sizeof(r))
    return records[:p - &out[0]], begun


cdef inline uint8_t *champsim_write(
    uint8_t *p, const cloudsuite_t *r, bint wide
) noexcept nogil:
    if wide:
        memcpy(p, r, sizeof(cloudsuite_t))
        return p + sizeof(cloudsuite_t)
    memset(p, 0, 16)
    memcpy(p, &r.ip, 8)
    memcpy(p + 16, r.destination_memory, 16)
    memcpy(p + 32, r.source_memory, 32)
    return p + sizeof(champsim_t)


# ---------------------------------------------------------------------------------- drmemtrace

cdef packed struct entry_t:
    uint16_t type
    uint16_t size
    uint64_t addr

cdef enum role_t:               # what an entry of a type is to us
    SKIP = 0
    READ = 1
    WRITE = 2
    FETCH = 3
    REPEAT = 4                  # a fetch unless it repeats the instruction before
    BUNDLE = 5
    SWITCH = 6
    HEADER = 7
    FOOTER = 8
    UNKNOWN = 9

cdef uint8_t[256] ROLE
memset(ROLE, UNKNOWN, 256)
memset(ROLE, SKIP, 50)          # the types up to version 6 of the format
ROLE[0] = READ
ROLE[1] = WRITE
for _type in (10, 11, 12, 13, 14, 15, 16, 31, 48, 49):
    ROLE[_type] = FETCH         # instructions, by their kind of branch
ROLE[17] = BUNDLE
ROLE[22] = SWITCH
ROLE[25] = HEADER
ROLE[26] = FOOTER
ROLE[30] = REPEAT


def parse_drmemtrace(
    const uint8_t[::1] data, uint8_t[::1] out, uint64_t[::1] state, uint32_t arg
):
    """Parse entries of 12 bytes.

    Parameters
    ----------
    data : bytes-like
        Beginning at an entry.
    out : ndarray of uint8
        Room for events, as bytes.
    state : ndarray of uint64
        vCPU, thread, address and size of the instruction before, 1 after a header, 2 after
        a footer; changed.
    arg : int
        For the `arg` of the events.

    Returns
    -------
    (int, int, int, int, int)
        Status; bytes, events and entries without an event that were done; the thread, version
        or type that the status is about.
    """
    cdef Py_ssize_t count = data.shape[0] // <Py_ssize_t>sizeof(entry_t)
    cdef Py_ssize_t room = out.shape[0] // <Py_ssize_t>sizeof(event_t)
    cdef Py_ssize_t _i
    cdef const entry_t *r
    cdef event_t *e
    cdef event_t *start
    cdef event_t *end
    cdef uint64_t skipped = 0
    cdef uint64_t told = 0
    cdef uint64_t pc, length
    cdef uint16_t vcpu
    cdef uint8_t role
    cdef int k
    cdef status_t status = MORE
    if state.shape[0] < 5:
        raise InvalidValueError("state must have 5 words")
    if count == 0:
        return MORE, 0, 0, 0, 0
    if room == 0:
        return FULL, 0, 0, 0, 0
    r = <const entry_t *>&data[0]
    e = start = <event_t *>&out[0]
    end = e + room
    vcpu = <uint16_t>state[0]
    pc = state[2]
    length = state[3]
    with nogil:
        for _i in range(count):
            if end - e < MOST_EVENTS:
                status = FULL
                break
            role = ROLE[r.type] if r.type < 256 else UNKNOWN
            if role == READ:
                e = put(e, EVENT_LOAD, r.addr, r.size, vcpu, arg)
            elif role == WRITE:
                e = put(e, EVENT_STORE, r.addr, r.size, vcpu, arg)
            elif role == FETCH or role == REPEAT:
                if role == REPEAT and r.addr == pc:
                    skipped += 1
                else:
                    e = put(e, EVENT_FETCH, r.addr, r.size, vcpu, arg)
                pc = r.addr
                length = r.size
            elif role == BUNDLE:
                if r.size > 8:
                    status = BAD_RECORD
                    told = r.type
                    break
                for k in range(r.size):     # each byte is the length of one more instruction
                    pc += length
                    length = r.addr >> 8 * k & 255
                    e = put(e, EVENT_FETCH, pc, length, vcpu, arg)
            elif role == SWITCH:
                if r.addr != state[1]:
                    status = THREAD
                    told = r.addr
                    break
                skipped += 1
            elif role == UNKNOWN:
                status = BAD_RECORD
                told = r.type
                break
            elif role == HEADER and not 2 <= r.addr < 256:
                status = BAD_VERSION
                told = r.addr
                break
            else:
                skipped += 1
                if role == HEADER:
                    state[4] = 1
                elif role == FOOTER:
                    state[4] = 2
            r += 1
    state[2] = pc
    state[3] = length
    return status, <const uint8_t *>r - &data[0], e - start, skipped, told


# ---------------------------------------------------------------------------------------- gem5

cdef inline const uint8_t *read_varint(
    const uint8_t *p, const uint8_t *end, uint64_t *value
) noexcept nogil:
    """Read seven bits a byte, and return where they end, or NULL."""
    cdef uint64_t v = 0
    cdef int shift = 0
    while p < end and shift < 70:
        v |= <uint64_t>(p[0] & 127) << shift if shift < 64 else 0
        if p[0] < 128:
            value[0] = v
            return p + 1
        shift += 7
        p += 1
    return NULL


cdef inline const uint8_t *skip_field(
    const uint8_t *p, const uint8_t *end, int wire
) noexcept nogil:
    """Pass over a field of a wire type other than 0."""
    cdef uint64_t length
    if wire == 1:
        length = 8
    elif wire == 5:
        length = 4
    elif wire == 2:
        p = read_varint(p, end, &length)
        if p == NULL:
            return NULL
    else:
        return NULL
    if length > <uint64_t>(end - p):
        return NULL
    return p + length


cdef status_t read_packet(
    const uint8_t *p, const uint8_t *end, event_t **out, uint64_t *skipped, uint32_t arg
) noexcept nogil:
    cdef uint64_t[8] field      # by number
    cdef uint64_t tag, value
    cdef int seen = 0
    memset(field, 0, sizeof(field))
    while p < end:
        p = read_varint(p, end, &tag)
        if p == NULL or tag < 8:
            return BAD_RECORD
        if tag & 7:
            p = skip_field(p, end, tag & 7)
            if p == NULL:
                return BAD_RECORD
            continue
        p = read_varint(p, end, &value)
        if p == NULL:
            return BAD_RECORD
        if tag >> 3 < 8:
            field[tag >> 3] = value
            seen |= 1 << (tag >> 3)
    if seen & 0x1E != 0x1E:     # tick, cmd, addr and size must be there
        return BAD_RECORD
    if field[2] == GEM5_READ:
        if field[4] > MOST_BYTES:
            return BAD_SIZE
        out[0] = put(out[0], EVENT_FETCH if field[5] & GEM5_FETCH else EVENT_LOAD, field[3],
                     field[4], 0, arg)
    elif field[2] == GEM5_WRITE:
        if field[4] > MOST_BYTES:
            return BAD_SIZE
        out[0] = put(out[0], EVENT_STORE, field[3], field[4], 0, arg)
    else:
        skipped[0] += 1
    return MORE


def parse_gem5(const uint8_t[::1] data, uint8_t[::1] out, uint32_t arg):
    """Parse packets, each after its length.

    Parameters
    ----------
    data : bytes-like
        Beginning at the length of a packet.
    out : ndarray of uint8
        Room for events, as bytes.
    arg : int
        For the `arg` of the events.

    Returns
    -------
    (int, int, int, int)
        Status; bytes, events and packets that were done.
    """
    cdef Py_ssize_t room = out.shape[0] // <Py_ssize_t>sizeof(event_t)
    cdef const uint8_t *p
    cdef const uint8_t *end
    cdef const uint8_t *body
    cdef event_t *e
    cdef event_t *start
    cdef uint64_t length
    cdef uint64_t packets = 0
    cdef uint64_t skipped = 0
    cdef status_t status = MORE
    if data.shape[0] == 0:
        return MORE, 0, 0, 0, 0
    if room == 0:
        return FULL, 0, 0, 0, 0
    p = &data[0]
    end = p + data.shape[0]
    e = start = <event_t *>&out[0]
    with nogil:
        while p < end:
            if start + room - e < MOST_EVENTS:
                status = FULL
                break
            body = read_varint(p, end, &length)
            if body == NULL:
                if end - p >= 10:
                    status = BAD_RECORD
                break
            if length > LONGEST_PACKET:
                status = BAD_RECORD
                break
            if length > <uint64_t>(end - body):
                break
            status = read_packet(body, body + length, &e, &skipped, arg)
            if status != MORE:
                break
            packets += 1
            p = body + length
    return status, p - &data[0], e - start, packets, skipped


cdef inline uint8_t *write_varint(uint8_t *p, uint64_t value) noexcept nogil:
    while value > 127:
        p[0] = <uint8_t>(value | 128)
        value >>= 7
        p += 1
    p[0] = <uint8_t>value
    return p + 1


cdef inline uint8_t *write_packet(
    uint8_t *p, const event_t *e, uint64_t tick, bint store
) noexcept nogil:
    cdef uint8_t *start = p
    p += 1                      # the length, which is below 128
    p[0] = 1 << 3
    p = write_varint(p + 1, tick)
    p[0] = 2 << 3
    p[1] = GEM5_WRITE if store else GEM5_READ
    p[2] = 3 << 3
    p = write_varint(p + 3, e.addr)
    p[0] = 4 << 3
    p = write_varint(p + 1, e.size)
    p[0] = 5 << 3
    p = write_varint(p + 1, GEM5_FETCH if e.op == EVENT_FETCH else 0)
    start[0] = <uint8_t>(p - start - 1)
    return p


def format_gem5(const uint8_t[::1] events, uint64_t tick):
    """Write accesses as packets, one tick after the other.

    Parameters
    ----------
    events : ndarray of uint8
        Accesses, as bytes.
    tick : int
        Of the first.

    Returns
    -------
    ndarray of uint8
        The packets, each after its length.
    """
    cdef Py_ssize_t count = events.shape[0] // <Py_ssize_t>sizeof(event_t)
    cdef const event_t *e = <const event_t *>&events[0] if count else NULL
    cdef uint8_t[::1] out
    cdef uint8_t *p
    cdef Py_ssize_t i
    packets = np.empty(max(1, count * 80), np.uint8)
    out = packets
    p = &out[0]
    with nogil:
        for i in range(count):
            if e[i].op == EVENT_MODIFY:
                p = write_packet(p, e + i, tick + i, False)
            p = write_packet(p, e + i, tick + i, e[i].op == EVENT_STORE or e[i].op == EVENT_MODIFY)
    return packets[:p - &out[0]]
