"""The hypervisor's side of address translation: shadow page tables and nested tables."""
