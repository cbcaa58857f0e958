/* Ordered sets and FIFO lists of world numbers for plug-in policies. Their links lie in nodes within
   the policy's world records, so that nothing is allocated and a copy of the records is a copy of
   the sets. A record of zeros is a node in no set, a root of 0 an empty set: links are numbers
   plus 1.

   The ordered set is a treap (Seidel and Aragon 1996) by key, equal keys by world number, whose
   heap order is a mixed world number: the same members always form the same tree. */
#ifndef PYVIRT_ORDERED_H
#define PYVIRT_ORDERED_H

#include <stddef.h>
#include <stdint.h>

#define PV_NO_WORLD UINT32_MAX

typedef struct {
    int64_t key;
    uint32_t left, right, up;
    uint32_t in;                        /* 1 while in a set or list */
} node_t;

typedef struct {                        /* where the nodes are */
    char *base;                         /* node of world 0 */
    size_t size;                        /* of a world record */
} nodes_t;

typedef struct {
    uint32_t first, last;
} fifo_t;

static inline node_t *pv_node(nodes_t nodes, uint32_t id)
{
    return (node_t *)(nodes.base + id * nodes.size);
}

static inline uint32_t pv_heap(uint32_t id)
{
    uint32_t x = id * 0x9E3779B1u;
    x ^= x >> 15;
    x *= 0x85EBCA77u;
    return x ^ x >> 13;
}

static inline int pv_before(nodes_t nodes, uint32_t a, uint32_t b)
{
    const int64_t x = pv_node(nodes, a)->key, y = pv_node(nodes, b)->key;
    return x < y || (x == y && a < b);
}

/* What points at `id` points at `other` (a number plus 1, or 0) instead. */
static inline void pv_relink(uint32_t *root, nodes_t nodes, uint32_t id, uint32_t other)
{
    const uint32_t up = pv_node(nodes, id)->up;
    if (!up)
        *root = other;
    else if (pv_node(nodes, up - 1)->left == id + 1)
        pv_node(nodes, up - 1)->left = other;
    else
        pv_node(nodes, up - 1)->right = other;
    if (other)
        pv_node(nodes, other - 1)->up = up;
}

/* The child `id` changes places with its parent. */
static inline void pv_rotate(uint32_t *root, nodes_t nodes, uint32_t id)
{
    node_t *n = pv_node(nodes, id);
    const uint32_t parent = n->up - 1;
    node_t *p = pv_node(nodes, parent);
    uint32_t moved;
    pv_relink(root, nodes, parent, id + 1);
    if (p->left == id + 1) {
        p->left = moved = n->right;
        n->right = parent + 1;
    } else {
        p->right = moved = n->left;
        n->left = parent + 1;
    }
    if (moved)
        pv_node(nodes, moved - 1)->up = parent + 1;
    p->up = id + 1;
}

/* Enter a world that is in no set of these nodes. */
static inline void ordered_insert(uint32_t *root, nodes_t nodes, uint32_t id, int64_t key)
{
    node_t *n = pv_node(nodes, id);
    uint32_t at = *root, up = 0;
    uint32_t *link = root;
    n->key = key;
    n->left = n->right = 0;
    n->in = 1;
    while (at) {
        up = at;
        link = pv_before(nodes, id, at - 1) ? &pv_node(nodes, at - 1)->left
                                            : &pv_node(nodes, at - 1)->right;
        at = *link;
    }
    *link = id + 1;
    n->up = up;
    while (n->up && pv_heap(id) < pv_heap(n->up - 1))
        pv_rotate(root, nodes, id);
}

/* Take a world out; one that is in no set is left alone. */
static inline void ordered_remove(uint32_t *root, nodes_t nodes, uint32_t id)
{
    node_t *n = pv_node(nodes, id);
    if (!n->in)
        return;
    while (n->left && n->right)
        pv_rotate(root, nodes,
                  (pv_heap(n->left - 1) < pv_heap(n->right - 1) ? n->left : n->right) - 1);
    pv_relink(root, nodes, id, n->left ? n->left : n->right);
    n->left = n->right = n->up = n->in = 0;
}

/* The world of least key, or PV_NO_WORLD. */
static inline uint32_t ordered_first(const uint32_t *root, nodes_t nodes)
{
    uint32_t at = *root;
    if (!at)
        return PV_NO_WORLD;
    while (pv_node(nodes, at - 1)->left)
        at = pv_node(nodes, at - 1)->left;
    return at - 1;
}

static inline uint32_t ordered_last(const uint32_t *root, nodes_t nodes)
{
    uint32_t at = *root;
    if (!at)
        return PV_NO_WORLD;
    while (pv_node(nodes, at - 1)->right)
        at = pv_node(nodes, at - 1)->right;
    return at - 1;
}

/* The one after a world of the set, or PV_NO_WORLD. */
static inline uint32_t ordered_next(nodes_t nodes, uint32_t id)
{
    const node_t *n = pv_node(nodes, id);
    if (n->right)
        return ordered_first(&n->right, nodes);
    while (n->up) {
        const uint32_t from = id + 1;
        id = n->up - 1;
        n = pv_node(nodes, id);
        if (n->left == from)
            return id;
    }
    return PV_NO_WORLD;
}

/* Lists: `left` is the one before, `right` the one after. */

static inline void fifo_push(fifo_t *list, nodes_t nodes, uint32_t id)
{
    node_t *n = pv_node(nodes, id);
    n->left = list->last;
    n->right = 0;
    n->in = 1;
    if (list->last)
        pv_node(nodes, list->last - 1)->right = id + 1;
    else
        list->first = id + 1;
    list->last = id + 1;
}

static inline void fifo_push_front(fifo_t *list, nodes_t nodes, uint32_t id)
{
    node_t *n = pv_node(nodes, id);
    n->left = 0;
    n->right = list->first;
    n->in = 1;
    if (list->first)
        pv_node(nodes, list->first - 1)->left = id + 1;
    else
        list->last = id + 1;
    list->first = id + 1;
}

static inline void fifo_remove(fifo_t *list, nodes_t nodes, uint32_t id)
{
    node_t *n = pv_node(nodes, id);
    if (!n->in)
        return;
    if (n->left)
        pv_node(nodes, n->left - 1)->right = n->right;
    else
        list->first = n->right;
    if (n->right)
        pv_node(nodes, n->right - 1)->left = n->left;
    else
        list->last = n->left;
    n->left = n->right = n->in = 0;
}

static inline uint32_t fifo_first(const fifo_t *list)
{
    return list->first ? list->first - 1 : PV_NO_WORLD;
}

static inline uint32_t fifo_next(nodes_t nodes, uint32_t id)
{
    const uint32_t next = pv_node(nodes, id)->right;
    return next ? next - 1 : PV_NO_WORLD;
}

static inline uint32_t fifo_pop(fifo_t *list, nodes_t nodes)
{
    const uint32_t id = fifo_first(list);
    if (id != PV_NO_WORLD)
        fifo_remove(list, nodes, id);
    return id;
}

#endif
