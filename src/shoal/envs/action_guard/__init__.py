"""The action guard: what stands between a policy's actions and an environment."""
