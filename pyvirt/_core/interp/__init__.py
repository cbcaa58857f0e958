"""The interpreter: a processor of the IA-32 kind, exact to the instruction."""
