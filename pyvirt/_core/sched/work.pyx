"""Records of richer workloads: room, numbers, and how they become values."""

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcmp, memcpy, memset

cdef enum:
    HIST_SIZE = RESPONSE_BUCKETS * 8


cdef void begin_more(more_t *m) noexcept nogil:
    memset(m, 0, sizeof(more_t))
    m.works_free = m.teams_free = m.hists_free = m.tables_free = NO_RECORD


cdef void free_more(more_t *m) noexcept nogil:
    cdef uint32_t i
    free(m.works)
    free(m.teams)
    free(m.hists)
    for i in range(m.tables_count):
        free(m.tables[i].values)
    free(m.tables)


cdef bint room(void **records, uint32_t *capacity, uint32_t count, size_t size) noexcept nogil:
    """Make room for one more record."""
    cdef uint32_t wanted = 2 * capacity[0] if capacity[0] else 4
    cdef void *grown
    if count < capacity[0]:
        return True
    grown = realloc(records[0], wanted * size)
    if grown == NULL:
        return False
    records[0], capacity[0] = grown, wanted
    return True


cdef uint32_t new_work(more_t *m) noexcept nogil:
    """Give the number of a new record, all zero but for its numbers; or NO_RECORD."""
    cdef uint32_t work = m.works_free
    if work != NO_RECORD:
        m.works_free = m.works[work].next
    else:
        if not room(<void **>&m.works, &m.works_room, m.works_count, sizeof(work_t)):
            return NO_RECORD
        work = m.works_count
        m.works_count += 1
    memset(&m.works[work], 0, sizeof(work_t))
    m.works[work].team = m.works[work].next = m.works[work].hist = NO_RECORD
    m.works[work].table = NO_RECORD
    m.works[work].work.table = m.works[work].gap.table = NO_RECORD
    m.works[work].section.table = NO_RECORD
    return work


cdef void free_work(more_t *m, uint32_t work) noexcept nogil:
    """Give back the record, its histogram and its use of tables; it has left its team."""
    cdef work_t *k = &m.works[work]
    drop_table(m, k.table)
    drop_table(m, k.work.table)
    drop_table(m, k.gap.table)
    drop_table(m, k.section.table)
    free_hist(m, k.hist)
    memset(k, 0, sizeof(work_t))
    k.next = m.works_free
    m.works_free = work


cdef uint32_t new_team(more_t *m) noexcept nogil:
    cdef uint32_t team = m.teams_free
    if team != NO_RECORD:
        m.teams_free = m.teams[team].first
    else:
        if not room(<void **>&m.teams, &m.teams_room, m.teams_count, sizeof(team_t)):
            return NO_RECORD
        team = m.teams_count
        m.teams_count += 1
    memset(&m.teams[team], 0, sizeof(team_t))
    m.teams[team].first = m.teams[team].holder = NO_RECORD
    return team


cdef void free_team(more_t *m, uint32_t team) noexcept nogil:
    memset(&m.teams[team], 0, sizeof(team_t))
    m.teams[team].first = m.teams_free
    m.teams_free = team


cdef uint32_t new_hist(more_t *m) noexcept nogil:
    cdef uint32_t hist = m.hists_free
    if hist != NO_RECORD:
        m.hists_free = <uint32_t>m.hists[<size_t>hist * RESPONSE_BUCKETS]
    else:
        if not room(<void **>&m.hists, &m.hists_room, m.hists_count, HIST_SIZE):
            return NO_RECORD
        hist = m.hists_count
        m.hists_count += 1
    memset(&m.hists[<size_t>hist * RESPONSE_BUCKETS], 0, HIST_SIZE)
    return hist


cdef void free_hist(more_t *m, uint32_t hist) noexcept nogil:
    """NO_RECORD: there is none."""
    if hist != NO_RECORD:
        m.hists[<size_t>hist * RESPONSE_BUCKETS] = m.hists_free
        m.hists_free = hist


cdef uint32_t new_table(more_t *m, const int64_t *values, uint32_t count) noexcept nogil:
    """Give the number of a table with a copy of the values and one user; or NO_RECORD."""
    cdef uint32_t table
    cdef int64_t *copied = <int64_t *>malloc(count * sizeof(int64_t))
    if copied == NULL:
        return NO_RECORD
    memcpy(copied, values, count * sizeof(int64_t))
    if m.tables_free != NO_RECORD:
        table = m.tables_free
        m.tables_free = m.tables[table].next
    else:
        if not room(<void **>&m.tables, &m.tables_room, m.tables_count, sizeof(table_t)):
            free(copied)
            return NO_RECORD
        table = m.tables_count
        m.tables_count += 1
    m.tables[table].values, m.tables[table].count = copied, count
    m.tables[table].users = 1
    return table


cdef bint use_table(more_t *m, uint32_t table, const int64_t *values, uint32_t count) noexcept nogil:
    """One more user of this table, if it is there and has just these values."""
    cdef table_t *t
    if table >= m.tables_count:
        return False
    t = &m.tables[table]
    if not t.users or t.count != count or memcmp(t.values, values, count * sizeof(int64_t)):
        return False
    t.users += 1
    return True


cdef void drop_table(more_t *m, uint32_t table) noexcept nogil:
    """One user less; without any, the values go."""
    cdef table_t *t
    if table == NO_RECORD:
        return
    t = &m.tables[table]
    t.users -= 1
    if not t.users:
        free(t.values)
        t.values, t.count = NULL, 0
        t.next = m.tables_free
        m.tables_free = table


cdef size_t size_of_more(const more_t *m) noexcept nogil:
    cdef uint32_t i
    cdef size_t size = m.works_room * sizeof(work_t) + m.teams_room * sizeof(team_t)
    size += <size_t>m.hists_room * HIST_SIZE
    size += m.tables_room * sizeof(table_t)
    for i in range(m.tables_count):
        size += m.tables[i].count * sizeof(int64_t)
    return size


# --- as values ---


cdef object save_more(const more_t *m):
    """All records, without addresses."""
    cdef uint32_t i
    tables = []
    for i in range(m.tables_count):
        values = (<const char *>m.tables[i].values)[:m.tables[i].count * sizeof(int64_t)] \
            if m.tables[i].count else b""
        tables.append((m.tables[i].users, m.tables[i].next, values))
    return (
        (m.works_free, m.teams_free, m.hists_free, m.tables_free),
        (<const char *>m.works)[:m.works_count * sizeof(work_t)] if m.works_count else b"",
        (<const char *>m.teams)[:m.teams_count * sizeof(team_t)] if m.teams_count else b"",
        (<const char *>m.hists)[:m.hists_count * HIST_SIZE] if m.hists_count else b"",
        tables,
    )


cdef void *copied(bytes saved, size_t size) noexcept:
    """Records from their bytes; there is always something to free."""
    cdef void *made = malloc(size if size else 1)
    if made != NULL:
        memcpy(made, <const char *>saved, size)
    return made


cdef object load_more(more_t *m, object saved):
    """Into an empty `m`, from `save_more`; after a failure it is to be freed."""
    cdef uint32_t i
    cdef bytes works, teams, hists, values
    numbers, works, teams, hists, tables = saved
    m.works_free, m.teams_free, m.hists_free, m.tables_free = numbers
    m.works = <work_t *>copied(works, len(works))
    m.teams = <team_t *>copied(teams, len(teams))
    m.hists = <uint64_t *>copied(hists, len(hists))
    m.tables = <table_t *>calloc(max(1, len(tables)), sizeof(table_t))
    if m.works == NULL or m.teams == NULL or m.hists == NULL or m.tables == NULL:
        raise MemoryError
    m.works_count = m.works_room = <uint32_t>(len(works) // sizeof(work_t))
    m.teams_count = m.teams_room = <uint32_t>(len(teams) // sizeof(team_t))
    m.hists_count = m.hists_room = <uint32_t>(len(hists) // HIST_SIZE)
    m.tables_room = <uint32_t>len(tables)
    for i in range(m.tables_room):
        users, next, values = tables[i]
        m.tables[i].values = <int64_t *>copied(values, len(values))
        if m.tables[i].values == NULL:
            raise MemoryError
        m.tables_count = i + 1
        m.tables[i].users, m.tables[i].next = users, next
        m.tables[i].count = <uint32_t>(len(values) // sizeof(int64_t))
