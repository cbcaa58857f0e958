"""The whole machine: virtual machines, their monitors, and the VMkernel of a host."""
