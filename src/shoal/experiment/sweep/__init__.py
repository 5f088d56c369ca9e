"""Sweeps: many runs of one task with other settings, their cost, and whether the best of them is better."""
