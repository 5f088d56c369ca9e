"""Checks: tests an environment of one's own and reports problems."""
