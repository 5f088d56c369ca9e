"""Memory of what was experienced: the slabs of rollouts."""
