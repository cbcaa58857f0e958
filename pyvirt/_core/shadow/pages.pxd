# The pool of table pages: making and freeing, look-up by guest frame, entries and their lists.

from libc.stdint cimport uint32_t, uint64_t

from pyvirt._core.shadow.state cimport hyper_t

cdef uint32_t make_page(hyper_t *s, uint64_t gfn, uint32_t role) noexcept nogil
cdef void hide_page(hyper_t *s, uint32_t page) noexcept nogil
cdef void free_page(hyper_t *s, uint32_t page) noexcept nogil
cdef void set_link(hyper_t *s, uint32_t slot, uint32_t child) noexcept nogil
cdef void set_leaf(hyper_t *s, uint32_t slot, uint64_t entry, uint32_t level) noexcept nogil
cdef void set_switch(hyper_t *s, uint32_t slot, uint64_t gfn, uint64_t rights) noexcept nogil
cdef void drop_entry(hyper_t *s, uint32_t slot) noexcept nogil
cdef bint holds_upper_table(const hyper_t *s, uint64_t gfn) noexcept nogil
