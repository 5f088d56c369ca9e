"""Environments: one contract, `VecEnv`, and the backends that keep it."""
