"""Explanation of a trained policy: what it looks at, what would change its mind, rules like it, where it was wrong."""
