"""What the scalar form of `pyvirt.MMU.translate` gives."""

cimport cython


@cython.freelist(64)
@cython.final
cdef class Access:
    """What one access came to.

    Attributes
    ----------
    va : int
        The address.
    pa : int
        Host-physical address; 0 after a fault.
    code : int
        Outcome, as in `pyvirt.Accesses`.
    """

    @property
    def pa(self):
        """Host-physical address; 0 after a fault."""
        return self.c_pa

    @property
    def code(self):
        """Outcome, as in `pyvirt.Accesses`."""
        return self.c_code

    @property
    def ok(self):
        """Whether the access was translated."""
        return self.c_code & 15 == 0

    @property
    def hit_level(self):
        """Level of the TLB that hit; 0 if none did."""
        return 0 if self.c_code & 15 else self.c_code >> 4 & 7

    @property
    def references(self):
        """Table entries that its walk read (63: or more); 0 without a walk or after a fault."""
        return 0 if self.c_code & 15 else self.c_code >> 7 & 63

    @property
    def page_shift(self):
        """log2 of the size of the mapping; 0 after a fault."""
        return 0 if self.c_code & 15 else 12 + 9 * (self.c_code >> 13 & 3)

    def __repr__(self):
        if self.va is None:
            return "<Access (not made)>"
        return f"<Access {self.va:#x} -> {self.c_pa:#x} code={self.c_code:#x}>"
