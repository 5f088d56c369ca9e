"""Scorers: what judges answers, beside sampling and learning."""
