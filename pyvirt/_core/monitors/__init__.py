"""The devices of a simulated PC, behind one bus."""
