"""Stages: how a policy comes from a simulator to the real system, step by step, each measured and signed."""
