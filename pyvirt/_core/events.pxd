# The event record and its operations; pyvirt.traces.events has the same for Python.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef enum event_op_t:
    EVENT_NOP = 0
    EVENT_LOAD = 1
    EVENT_STORE = 2
    EVENT_FETCH = 3
    EVENT_MODIFY = 4
    EVENT_MOV_CR3 = 16
    EVENT_MOV_CR0 = 17
    EVENT_MOV_CR4 = 18
    EVENT_INVLPG = 19
    EVENT_INVPCID = 20
    EVENT_INVVPID = 21
    EVENT_INVEPT = 22
    EVENT_INVLPGA = 23
    EVENT_TLB_CONTROL = 24
    EVENT_VM_ENTRY = 25
    EVENT_VM_EXIT = 26
    EVENT_IO = 27
    EVENT_STORE_TABLE = 32
    EVENT_MAP = 33
    EVENT_UNMAP = 34
    EVENT_PROTECT = 35
    EVENT_VCPU_SWITCH = 40
    EVENT_VM_SWITCH = 41

cdef packed struct event_t:
    uint8_t op
    uint8_t size
    uint16_t vcpu
    uint32_t arg
    uint64_t addr
    uint64_t value
