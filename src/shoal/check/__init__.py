"""Checks: tests a custom environment and reports problems."""
