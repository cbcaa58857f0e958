# A winner tree of keys that need all of their 64 bits, beside the numbers of their owners: node 1 is
# the least of all leaves by key, and of equal keys the one with the lowest number. An empty leaf has
# the key INT64_MAX and the number NOBODY.
#
# As in winner.h, there is no branch on which of two keys is less, which no one could predict.

from libc.stdint cimport int64_t, uint32_t

cdef enum:
    NOBODY = 0xFFFFFFFF

cdef extern from * nogil:
    """
    #ifndef PYVIRT_PAIRS
    #define PYVIRT_PAIRS
    static inline void pairs_set(
        int64_t *keys, uint32_t *owners, uint32_t leaves, uint32_t slot, int64_t key, uint32_t owner)
    {
        uint32_t i = leaves + slot;
        keys[i] = key;
        owners[i] = owner;
        for (; leaves > 1; leaves >>= 1) {  /* without a loop where their number is known */
            const int64_t other = keys[i ^ 1];
            const uint32_t who = owners[i ^ 1];
            if (other == key)
                owner = who < owner ? who : owner;
            else {
                owner = other < key ? who : owner;
                key = other < key ? other : key;
            }
            i >>= 1;
            keys[i] = key;
            owners[i] = owner;
        }
    }
    #endif
    """
    void pairs_set(
        int64_t *keys, uint32_t *owners, uint32_t leaves, uint32_t slot, int64_t key, uint32_t owner)


cdef inline void pairs_clear(int64_t *keys, uint32_t *owners, uint32_t leaves) noexcept nogil:
    cdef uint32_t i
    for i in range(2 * leaves):
        keys[i] = 0x7FFFFFFFFFFFFFFF
        owners[i] = NOBODY
