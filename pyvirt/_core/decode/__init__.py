"""The instruction decoder: lengths, operands and classes of x86 instructions."""
