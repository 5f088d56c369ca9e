"""Returns and losses: pure functions."""
