"""The protection rules of x86: descriptors, privilege levels and gates."""
