# Ordered sets and FIFO lists of worlds, whose nodes lie in a policy's world records.
#
#     ctypedef struct mine_t:
#         node_t node
#         ...
#     cdef inline nodes_t nodes(sched_t *s) noexcept nogil:
#         return nodes_at(&(<mine_t *>s.plug.worlds).node, sizeof(mine_t))
#
# Who cimports this needs pyvirt.sched.get_include() as include directory. Roots and lists of zeros are empty. A node is in one set or list at a time.

from libc.stdint cimport int64_t, uint32_t

cdef extern from "pyvirt/ordered.h" nogil:
    ctypedef struct node_t:
        int64_t key
        uint32_t left
        uint32_t right
        uint32_t up
        bint contained "in"         # in a set or list

    ctypedef struct nodes_t:
        char *base
        size_t size

    ctypedef struct fifo_t:
        uint32_t first              # a number plus 1
        uint32_t last

    # by key, equal keys by number; what is not there gives NO_WORLD
    void ordered_insert(uint32_t *root, nodes_t nodes, uint32_t id, int64_t key)
    void ordered_remove(uint32_t *root, nodes_t nodes, uint32_t id)
    uint32_t ordered_first(const uint32_t *root, nodes_t nodes)
    uint32_t ordered_last(const uint32_t *root, nodes_t nodes)
    uint32_t ordered_next(nodes_t nodes, uint32_t id)

    void fifo_push(fifo_t *list, nodes_t nodes, uint32_t id)
    void fifo_push_front(fifo_t *list, nodes_t nodes, uint32_t id)
    void fifo_remove(fifo_t *list, nodes_t nodes, uint32_t id)
    uint32_t fifo_pop(fifo_t *list, nodes_t nodes)
    uint32_t fifo_first(const fifo_t *list)
    uint32_t fifo_next(nodes_t nodes, uint32_t id)


cdef inline nodes_t nodes_at(node_t *first, size_t size) noexcept nogil:
    """Nodes of which that of world 0 is `first`, in records of `size`."""
    cdef nodes_t nodes
    nodes.base = <char *>first
    nodes.size = size
    return nodes
